"""The catalog and an exported database are read by DuckDB's own client of version 1."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import pytest

from jobs.query.catalog import CATALOG, write_catalog
from jobs.query.export import export_run
from jobs.query.select import run_query
from jobs.runs.trace_run import TraceRun, open_run
from schemas.errors import StoreError
from schemas.table_format import TableFormat
from tests.made_up.small_run import commit_scores, make_run

CLIENT = Path(sys.executable).parent / "duckdb"
VIEWS = (
    "SELECT view_name AS name FROM duckdb_views() WHERE NOT internal "
    "UNION ALL SELECT table_name FROM duckdb_tables()"
)


def asked(database: Path, sql: str) -> list[dict[str, object]]:
    """Return the rows that the client of version 1 reads, from another folder."""
    command = [CLIENT, "-readonly", "-json", database, "-c", sql]
    found = subprocess.run(command, capture_output=True, text=True, cwd="/", check=True)
    return json.loads(found.stdout or "[]")


@pytest.fixture
def run(tmp_path: Path) -> TraceRun:
    run = make_run(tmp_path / "a run's folder")
    write_catalog(run)
    for chunk in range(run.num_chunks):
        commit_scores(run, chunk)
    return run


def test_an_older_duckdb_reads_every_view(run: TraceRun, tmp_path: Path) -> None:
    rankings = run_query(run, "FROM ranking").num_rows
    exported = tmp_path / "out.duckdb"
    export_run(run, exported, TableFormat.DUCKDB, note=lambda _: None)
    for database in (Path(run.location, CATALOG), exported):
        assert str(asked(database, "SELECT version() AS v")[0]["v"]).startswith("v1.")
        names = [str(row["name"]) for row in asked(database, VIEWS)]
        assert len(names) > 12
        counts = " UNION ALL ".join(f"SELECT '{n}' AS name, count(*) AS n FROM {n}" for n in names)
        found = {row["name"]: row["n"] for row in asked(database, counts)}
        assert (found["scores"], found["ranking"]) == (
            run_query(run, "FROM scores").num_rows,
            rankings,
        )


def test_a_moved_catalog_reads_no_other_run(run: TraceRun, tmp_path: Path) -> None:
    """Another run was made in the old place since: its rows would be taken for the moved one's."""
    moved = Path(run.location).rename(tmp_path / "moved")
    assert "No files found" in refusal(moved / CATALOG, "captions")
    write_catalog(make_run(run.location, seeds=(5, 6)))
    for view in ("captions", "slabs", "trials", "commits", "ranking"):
        said = refusal(moved / CATALOG, view)
        assert f"{run.location} now holds another run: `dqf doctor RUN --repair`" in said


def refusal(database: Path, view: str) -> str:
    """Return what both versions of DuckDB say."""
    with (
        duckdb.connect(str(database), read_only=True) as connection,
        pytest.raises(duckdb.Error) as caught,
    ):
        connection.execute(f"SELECT * FROM {view}").fetchall()
    command = [CLIENT, "-readonly", database, "-c", f"SELECT * FROM {view}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode
    assert str(caught.value).splitlines()[0][:60] in done.stderr
    return done.stderr


def test_resuming_a_moved_run_writes_its_catalog_again(run: TraceRun, tmp_path: Path) -> None:
    copy = tmp_path / "o'dd [1]*? % é\"m"
    shutil.copytree(run.location, copy)
    shutil.rmtree(Path(run.location))
    write_catalog(open_run(copy))
    assert asked(copy / CATALOG, "SELECT count(*) AS n FROM trials") == [{"n": 24}]
    before = (copy / CATALOG).stat().st_mtime_ns
    write_catalog(open_run(copy))
    assert (copy / CATALOG).stat().st_mtime_ns == before


@pytest.mark.parametrize(("name", "said"), [("a?b", "DuckDB takes the \\?"), ("none", "TMPDIR")])
def test_a_place_where_no_catalog_can_be_made_is_a_sentence(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "r")
    (tmp_path / "a?b").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    with pytest.raises(StoreError, match=said):
        write_catalog(run)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a?b", "r"]
