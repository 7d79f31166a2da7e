"""SQL over runs: the views, the gate for users' statements, the catalog file."""

import os
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from jobs.store import Run
from schemas.errors import QueryRefused
from schemas.views import view_statements

CATALOG = "catalog.duckdb"
"""A DuckDB file of the views with paths relative to the run's folder: open it from there."""


def run_query(run: Run, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
    """Return the result of one read-only SELECT statement over a run's views.

    QueryRefused: it is not exactly one SELECT, reaches outside the run, or DuckDB rejects it.
    """
    with _connect() as connection:
        paths = [run.path / "units.parquet", run.path / "components.parquet", *run.parts()]
        _create_views(connection, run.path, [str(part) for part in run.parts()])
        _lock(connection, [str(path) for path in paths])
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise QueryRefused("give exactly one SELECT statement: runs are read-only")
            relation = connection.sql(statements[0].query, params=list(parameters))
            return relation.to_arrow_table()
        except duckdb.Error as error:
            raise QueryRefused(str(error).strip()) from error


def write_catalog(run: Run) -> None:
    """Write the run's `catalog.duckdb` unless it is there, all of it or nothing."""
    path = run.path / CATALOG
    if path.exists():
        return
    temporary = path.with_name(f".{CATALOG}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with duckdb.connect(str(temporary)) as connection:
        connection.execute(f"SET file_search_path = '{_escaped(str(run.path.resolve()))}'")
        for statement in view_statements(
            units="units.parquet", components="components.parquet", parts=["parts/*.parquet"]
        ):
            connection.execute(statement)
    temporary.replace(path)


def _connect() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        }
    )


def _create_views(
    connection: duckdb.DuckDBPyConnection, folder: Path, parts: Sequence[str]
) -> None:
    for statement in view_statements(
        units=str(folder / "units.parquet"),
        components=str(folder / "components.parquet"),
        parts=parts,
    ):
        connection.execute(statement)


def _lock(connection: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> None:
    """Leave the connection nothing but reading `paths`; the order of the settings matters."""
    listed = ", ".join(f"'{_escaped(path)}'" for path in paths)
    connection.execute(f"SET allowed_paths = [{listed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _escaped(text: str) -> str:
    return text.replace("'", "''")
