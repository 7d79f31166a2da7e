"""Exported tables have the rows of the views, and need nothing of the run."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from cli.options.home import HOME
from jobs.query.export import export_run
from jobs.query.select import run_query
from jobs.runs.trace_run import TraceRun, open_run
from schemas.documentation import VIEWS
from schemas.errors import DqfError, StoreError
from schemas.table_format import TableFormat
from tests.cli.test_commands import dqf
from tests.covering import slow
from tests.made_up.small_run import commit_scores, make_run

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that has the run `runs/r`."""
    folder = tmp_path_factory.mktemp("work")
    run = make_run(folder / "runs" / "r")
    for chunk in range(run.num_chunks):
        commit_scores(run, chunk)
    return folder


def rows_of(run: TraceRun) -> dict[str, int]:
    return {view.name: run_query(run, f"FROM {view.name}").num_rows for view in VIEWS}


def test_a_database_has_every_view_without_the_run(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "runs" / "r", moved := tmp_path / "r")
    run = open_run(moved)
    expected, scores = rows_of(run), run_query(run, "FROM scores ORDER BY ALL").to_pylist()
    out = tmp_path / "out.duckdb"
    export_run(run, out, TableFormat.DUCKDB, note=lambda _: None)
    shutil.rmtree(moved)
    with duckdb.connect(str(out), read_only=True) as connection:
        found = {name: len(connection.execute(f"FROM {name}").fetchall()) for name in expected}
        assert found == expected
        assert expected["scores"] == 24
        assert expected["ranking"] > 0
        again = connection.sql("FROM scores ORDER BY ALL").to_arrow_table().to_pylist()
        assert again == scores
        comments = connection.execute(
            "SELECT comment FROM duckdb_columns() WHERE table_name = 'units'"
        ).fetchall()
        assert any("changes no score" in (text or "") for (text,) in comments)


@pytest.mark.parametrize("table_format", ["parquet", slow("csv")])
def test_a_folder_has_a_file_of_every_view(made: Path, tmp_path: Path, table_format: str) -> None:
    out = tmp_path / "tables"
    done = dqf("export", "r", str(out), "--format", table_format, cwd=made)
    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    expected = rows_of(open_run(made / "runs" / "r"))
    assert sorted(file.name for file in out.iterdir()) == sorted(
        f"{name}.{table_format}" for name in expected
    )
    with duckdb.connect() as connection:
        for name, rows in expected.items():
            read = f"read_{table_format}('{out / name}.{table_format}')"
            assert connection.sql(f"SELECT count(*) FROM {read}").fetchall() == [(rows,)], name


def test_the_format_follows_from_the_name(made: Path, tmp_path: Path) -> None:
    assert dqf("export", "r", str(tmp_path / "a.duckdb"), cwd=made).returncode == 0
    assert dqf("export", "r", str(tmp_path / "a"), cwd=made).returncode == 0
    assert (tmp_path / "a" / "scores.parquet").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.duckdb"]


def test_what_cannot_be_written_is_one_sentence(made: Path, tmp_path: Path) -> None:
    run = open_run(made / "runs" / "r")
    with pytest.raises(StoreError, match=r"needs a file that ends in \.duckdb"):
        export_run(run, tmp_path / "out", TableFormat.DUCKDB, note=lambda _: None)
    with pytest.raises(StoreError, match="needs a folder"):
        export_run(run, tmp_path / "out.duckdb", TableFormat.CSV, note=lambda _: None)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(DqfError, match="not an empty folder"):
        export_run(run, tmp_path / "full", TableFormat.CSV, note=lambda _: None)
    with pytest.raises(StoreError, match="in a run's folder"):
        export_run(run, made / "runs/r/out.duckdb", TableFormat.DUCKDB, note=lambda _: None)
    for name in ("a?b", "a\\b"):
        with pytest.raises(StoreError, match="DuckDB takes the"):
            export_run(run, tmp_path / name / "out.duckdb", TableFormat.DUCKDB, note=lambda _: None)
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(made: Path) -> None:
    command = [sys.executable, "-m", "dqf", "export", "r", "out.duckdb"]
    done = subprocess.run(
        command, cwd=made, capture_output=True, text=True, check=False, env=ENVIRONMENT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "dqf: cannot write out.duckdb: File too large"
    assert [path.name for path in made.iterdir()] == ["runs"]


def test_a_run_is_found_in_dqf_home(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dqf("export", "r", "out.duckdb", cwd=tmp_path).returncode == 2
    monkeypatch.setenv(HOME, str(made))
    assert dqf("export", "r", "out.duckdb", cwd=tmp_path).returncode == 0
    assert (tmp_path / "out.duckdb").is_file()
