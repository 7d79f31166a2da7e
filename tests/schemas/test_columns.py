"""The documentation of views and columns is that of the views of a real run."""

import os
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.query.catalog import CATALOG
from jobs.query.select import run_query
from jobs.runs.parts import PartContent, read_part, write_part
from jobs.runs.trace_run import TraceRun
from schemas.attack import ATTACKS
from schemas.columns import MEANING, UNIT
from schemas.documentation import VIEWS, documented
from schemas.errors import QueryRefused
from schemas.evaluation import IMAGES
from schemas.statistics import STATISTICS
from schemas.tables import SCORES, VERSION_KEY


def test_every_view_is_documented_and_no_other(traced_run: TraceRun) -> None:
    found = run_query(traced_run, "SHOW TABLES")["name"].to_pylist()
    assert found == sorted(view.name for view in VIEWS)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_every_column_has_its_real_type(traced_run: TraceRun, view) -> None:  # noqa: ANN001
    found = run_query(traced_run, f"DESCRIBE {view.name}")
    real = [duckdb.sqltype(str(kind)) for kind in found["column_type"].to_pylist()]
    assert [column.name for column in view.columns] == found["column_name"].to_pylist()
    assert [duckdb.sqltype(column.type) for column in view.columns] == real
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


def metadata_of(field: "pa.Field[Any]") -> dict[bytes, bytes]:
    return field.metadata or {}


TABLES = ("captions", "slabs", "units", "components")


def test_the_files_of_a_run_say_what_their_columns_hold(traced_run: TraceRun) -> None:
    documented_columns = {view.name: view.columns for view in VIEWS}
    parts = [name for name in traced_run.live().names if "empty" not in name]
    files = {
        **{name: "scores" for name in parts},
        **{f"{name}.parquet": name for name in TABLES},
    }
    assert parts
    for file, view in files.items():
        schema = pq.read_schema(os.path.join(traced_run.location, file))
        said = [(field.name, *(metadata_of(field).get(k, b"") for k in (MEANING, UNIT)))
                for field in schema]  # fmt: skip
        assert said == [
            (column.name, column.meaning.encode(), column.unit.encode())
            for column in documented_columns[view]
        ]


@pytest.mark.parametrize(
    "schema", [IMAGES, ATTACKS, *STATISTICS.values()], ids=lambda schema: schema.names[-1]
)
def test_the_columns_of_every_table_have_a_meaning(schema: pa.Schema) -> None:
    assert all(metadata_of(field)[MEANING] for field in schema)
    assert all(UNIT in metadata_of(f) for f in schema if f.name.endswith(("_low", "_high")))


def test_parts_from_before_columns_had_meanings_are_packed_with_others() -> None:
    plain = pa.schema([field.remove_metadata() for field in SCORES], metadata={VERSION_KEY: "5"})
    parts = [
        PartContent(table=schema.empty_table(), commits=()) for schema in (plain, SCORES, plain)
    ]
    read = [
        read_part(write_part([part], run_id="r", schema=schema), "p", run_id="r", schema=SCORES)
        for part, schema in zip(parts, (plain, SCORES, plain), strict=True)
    ]
    packed = read_part(write_part(read, run_id="r", schema=SCORES), "g", run_id="r", schema=SCORES)
    assert list(map(metadata_of, packed.table.schema)) == list(map(metadata_of, SCORES))


def test_unknown_views_are_named() -> None:
    assert [view.name for view in documented(["ranking"])] == ["ranking"]
    with pytest.raises(QueryRefused, match="no view 'rankings': there are captions"):
        documented(["rankings"])
