"""A run's path says nothing about its data, whatever DuckDB or Arrow would read out of it."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.doctor.parts import audit
from jobs.doctor.tables import check_tables
from jobs.input.captions import read_captions
from jobs.query.catalog import write_catalog
from jobs.query.select import open_query, run_query
from jobs.runs.trace_run import TraceRun
from tests.made_up.small_run import commit_scores, make_run

FACTS = """
SELECT count(*) AS scores, min(attribute) AS first, max(attribute) AS last, max(seed) AS seed,
  count(DISTINCT component) AS components, (SELECT count(*) FROM commits) AS commits,
  (SELECT sum(mean_ie) FROM ranking) AS effects
FROM trials
"""
NAMES = (
    "attribute=style", "seed=99/component=foo", "a*b", "q?", "w[a-]", "o'x,y {c}",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that has beside each odd name those that it matches as a pattern."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("axb", "a1b", "qq"):
        make_run(folder / name / "r", seeds=(7,))
    return folder


def traced(location: Path, seeds: tuple[int, ...] = (0, 1)) -> TraceRun:
    run = make_run(location, seeds=seeds)
    for chunk in range(run.num_chunks):
        commit_scores(run, chunk)
    run.complete()
    write_catalog(run)
    return run


@pytest.fixture(scope="module")
def facts(folder: Path) -> dict[str, object]:
    return run_query(traced(folder / "plain" / "r"), FACTS).to_pylist()[0]


@pytest.mark.parametrize("name", NAMES)
def test_no_path_changes_a_run(name: str, folder: Path, facts: dict[str, object]) -> None:
    run = traced(folder / name / "r")
    assert run_query(run, FACTS).to_pylist() == [facts]
    with open_query({"r": run}, FACTS) as result:
        assert pa.Table.from_batches(result.batches, result.schema).to_pylist() == [facts]
    with duckdb.connect() as connection:
        assert not check_tables(run, connection).faults
        assert not audit(run, connection, lambda *_: None).faults
    # The catalog reads the kept statistics, which have a column for each of their own alone.
    with duckdb.connect(str(Path(run.location, "catalog.duckdb")), read_only=True) as catalog:
        assert catalog.sql(FACTS).to_arrow_table().to_pylist() == [facts]


def test_no_path_changes_a_users_table(tmp_path: Path) -> None:
    folder = tmp_path / "attribute=style" / "seed=3"
    folder.mkdir(parents=True)
    rows = [{"caption": "a cat", "subject": "cat", "attribute": "object"}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "captions.parquet")
    (caption,) = read_captions(folder / "captions.parquet")
    assert caption.attribute == "object"
