"""EXPLAIN and EXPLAIN ANALYZE show the plan of a statement that reads."""

import re
from pathlib import Path

import pytest

from jobs.query.select import run_query
from jobs.runs.trace_run import TraceRun
from schemas.errors import QueryRefused
from tests.made_up.small_run import commit_scores, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TraceRun:
    run = make_run(tmp_path_factory.mktemp("explained") / "r")
    for chunk in range(run.num_chunks):
        commit_scores(run, chunk)
    return run


@pytest.mark.parametrize("explain", ["EXPLAIN", "explain\nanalyze", " EXPLAIN ANALYZE"])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM scores",
        "WITH s AS (FROM scores) SELECT avg(clean) FROM s;",
        "SELECT * FROM ranking",
        "FROM captions",
    ],
)
def test_the_plan_of_a_statement_that_reads_is_shown(run: TraceRun, explain: str, sql: str) -> None:
    plan = run_query(run, f"{explain} {sql}")
    assert plan.column_names == ["explain_key", "explain_value"]
    shown = "".join(map(str, plan["explain_value"].to_pylist()))
    assert re.search(r"\d rows", shown)
    assert ("Total Time" in shown) == ("analyze" in explain.lower())


def test_what_is_refused_alone_is_refused_after_explain(run: TraceRun, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    for sql in (
        "FROM nowhere", f"COPY (SELECT 1) TO '{out}'", "DROP VIEW ranking", "FROM glob('*')",
        "SELECT getenv('HOME')",
    ):  # fmt: skip
        with pytest.raises(QueryRefused):
            run_query(run, f"EXPLAIN ANALYZE {sql}")
    assert not out.exists()
