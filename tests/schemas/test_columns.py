"""The documentation of views and columns is that of the views of a real run."""

import os

import duckdb
import pytest

from jobs.query.catalog import CATALOG
from jobs.query.select import run_query
from jobs.runs.trace_run import TraceRun
from schemas.columns import VIEWS, documented
from schemas.errors import QueryRefused


def test_every_view_is_documented_and_no_other(traced_run: TraceRun) -> None:
    found = run_query(traced_run, "SHOW TABLES")["name"].to_pylist()
    assert found == sorted(view.name for view in VIEWS)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_every_column_has_its_real_type(traced_run: TraceRun, view) -> None:  # noqa: ANN001
    found = run_query(traced_run, f"DESCRIBE {view.name}")
    real = zip(found["column_name"].to_pylist(), found["column_type"].to_pylist(), strict=True)
    assert [(column.name, column.type) for column in view.columns] == list(real)
    assert all(column.meaning for column in view.columns)


def test_the_catalog_has_the_comments(traced_run: TraceRun) -> None:
    with duckdb.connect(os.path.join(traced_run.location, CATALOG), read_only=True) as connection:
        views = connection.execute(
            "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal"
        ).fetchall()
        columns = connection.execute(
            "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
    assert dict(views) == {view.name: view.meaning for view in VIEWS}
    assert {row[:2]: row[2] for row in columns} == {
        (view.name, column.name): column.comment for view in VIEWS for column in view.columns
    }


def test_unknown_views_are_named() -> None:
    assert [view.name for view in documented(["ranking"])] == ["ranking"]
    with pytest.raises(QueryRefused, match="no view 'rankings': there are captions"):
        documented(["rankings"])
