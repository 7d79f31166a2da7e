"""SQL over runs: the views, the gate for users' statements, the catalog file."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from jobs.parts import EMPTY_PART, GROUP_CHUNKS
from jobs.storage import LocalStorage
from jobs.store import Run
from schemas.errors import QueryRefused, StoreError
from schemas.views import TABLES, quoted, view_statements

CATALOG = "catalog.duckdb"
"""A DuckDB file of the views with paths relative to the run's folder: open it from there."""
RELISTS = 5
"""How often a query starts anew because parts were packed under it."""

# For the catalog, whose views list files anew each time: a part whose group has a pack is skipped.
IS_LIVE = f"""
NOT coalesce(list_contains(
  (SELECT list(parse_filename(file)) FROM glob('packs/g*.parquet')),
  format('g{{{{:06d}}}}.parquet',
    try_cast(regexp_extract({{file}}, 'parts/c(\\d{{{{8}}}})\\.parquet', 1) AS BIGINT)
      // {GROUP_CHUNKS})), false)
"""


def run_query(run: Run, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
    """Return the result of one read-only SELECT statement over a run's views.

    QueryRefused: it is not exactly one SELECT, reaches outside the run, or DuckDB rejects it.
    """
    last: Exception | None = None
    for _ in range(RELISTS):
        try:
            tables, parts = _files(run)
            return _query(tables, parts, sql, parameters)
        except (FileNotFoundError, duckdb.IOException) as error:
            last = error
    raise QueryRefused(f"run {run.location} cannot be read: {last}") from last


def _files(run: Run) -> tuple[dict[str, str], list[str]]:
    """Return paths of the run's tables and of the parts that count."""
    names = [f"{table}.parquet" for table in TABLES]
    if not all(run.storage.exists(name) for name in [*names, EMPTY_PART]):
        raise StoreError(f"run {run.location} is not whole: `dqf trace resume` completes it")
    paths = [str(path) for path in run.storage.local([*names, *run.live().names])]
    return dict(zip(TABLES, paths, strict=False)), paths[len(TABLES) :]


def _query(
    tables: dict[str, str], parts: Sequence[str], sql: str, parameters: Sequence[object]
) -> pa.Table:
    with _connect() as connection:
        for statement in view_statements(tables, parts=parts):
            connection.execute(statement)
        _lock(connection, [*tables.values(), *parts])
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise QueryRefused("give exactly one SELECT statement: runs are read-only")
            relation = connection.sql(statements[0].query, params=list(parameters))
            return relation.to_arrow_table()
        except duckdb.IOException:
            raise
        except duckdb.Error as error:
            raise QueryRefused(str(error).strip()) from error


def write_catalog(run: Run) -> None:
    """Write a local run's `catalog.duckdb` unless it is there, all of it or nothing."""
    if isinstance(run.storage, LocalStorage) and not run.storage.exists(CATALOG):
        run.storage.create(CATALOG, _catalog(Path(run.location)))


def _catalog(folder: Path) -> bytes:
    tables = {table: f"{table}.parquet" for table in TABLES}
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, CATALOG)
        with duckdb.connect(str(path)) as connection:
            connection.execute(f"SET file_search_path = {quoted(str(folder))}")
            for statement in view_statements(
                tables, parts=["parts/*.parquet", "packs/*.parquet"], where=IS_LIVE
            ):
                connection.execute(statement)
        return path.read_bytes()


def _connect() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        }
    )


def _lock(connection: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> None:
    """Leave the connection nothing but reading `paths`; the order of the settings matters."""
    listed = ", ".join(map(quoted, paths))
    connection.execute(f"SET allowed_paths = [{listed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
