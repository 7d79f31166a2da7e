"""The catalog and an exported database are read by DuckDB's own client of version 1."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.query.catalog import CATALOG, write_catalog
from jobs.query.export import export_run
from jobs.query.select import run_query
from jobs.runs.trace_run import TraceRun
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
