"""SQL over runs: the views, the gate for users' statements, the catalog file."""

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from jobs.chunks import RELISTS
from jobs.kept_statistics import (
    keep_statistics,
    kept_statistics,
    key_of,
    select_kept,
    write_empty_statistics,
)
from jobs.parts import EMPTY_PACK, EMPTY_PART, GROUP_CHUNKS
from jobs.statistics import make_statistics
from jobs.storage import LocalStorage
from jobs.store import Run
from schemas.errors import QueryRefused, StoreError
from schemas.statistics import STATISTICS
from schemas.views import (
    STATISTICS_VIEWS,
    TABLES,
    commits_of,
    quoted,
    scores_of,
    view_statements,
)

CATALOG = "catalog.duckdb"
"""A DuckDB file of the views with paths relative to the run's folder: open it from there."""

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
    for source in [_in_place, *[_read_first] * RELISTS]:
        try:
            return _query(run, source, sql, parameters)
        except (FileNotFoundError, duckdb.IOException) as error:
            last = error
    raise QueryRefused(f"run {run.location} cannot be read: {last}") from last


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """Paths of what a query reads."""

    tables: dict[str, str]
    packs: list[str]
    """Those that count; they stay."""
    parts: list[str]
    """Those that count now; each goes when its group is packed."""
    key: str
    """Of the statistics that follow from them."""


def _files(run: Run) -> _Files:
    names = [f"{table}.parquet" for table in TABLES]
    try:
        *tables, empty_pack, empty_part = _paths(run, [*names, EMPTY_PACK, EMPTY_PART])
    except FileNotFoundError as error:
        raise StoreError(
            f"run {run.location} is not whole: `dqf trace resume` completes it"
        ) from error
    live = run.live()
    return _Files(
        tables=dict(zip(TABLES, tables, strict=True)),
        packs=[empty_pack, *_paths(run, sorted(live.packs.values()))],
        parts=[empty_part, *_paths(run, sorted(live.parts.values()))],
        key=key_of(run, live),
    )


def _paths(run: Run, names: Sequence[str]) -> list[str]:
    return [str(path) for path in run.storage.local(names)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Selects:
    """The SELECTs that a query's scores and commits come from."""

    scores: str
    commits: str


_Source = Callable[[duckdb.DuckDBPyConnection, _Files], _Selects]


def _in_place(_: duckdb.DuckDBPyConnection, files: _Files) -> _Selects:
    paths = [*files.packs, *files.parts]
    return _Selects(scores=scores_of(paths), commits=commits_of(paths))


def _read_first(connection: duckdb.DuckDBPyConnection, files: _Files) -> _Selects:
    """Read the parts into memory: a query longer than packing takes would never end otherwise."""
    connection.execute(f"CREATE TEMP TABLE recent_scores AS {scores_of(files.parts)}")
    connection.execute(f"CREATE TEMP TABLE recent_commits AS {commits_of(files.parts)}")
    return _Selects(
        scores=f"{scores_of(files.packs)} UNION ALL FROM recent_scores",
        commits=f"{commits_of(files.packs)} UNION ALL FROM recent_commits",
    )


def _query(run: Run, source: _Source, sql: str, parameters: Sequence[object]) -> pa.Table:
    files = _files(run)
    with _connect() as connection:
        _make_views(connection, files, source(connection, files))
        if reads_statistics(sql):
            for name, table in _statistics(connection, run, files).items():
                connection.register(f"estimated_{name}", table)
        _lock(connection, [*files.tables.values(), *files.packs, *files.parts])
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise QueryRefused("give exactly one SELECT statement: runs are read-only")
            relation = connection.sql(statements[0].query, params=list(parameters))
            return relation.to_arrow_table()
        except duckdb.Error as error:
            # A locked connection calls a file that is gone a pattern, which it may not expand.
            if not all(map(os.path.exists, [*files.packs, *files.parts])):
                raise FileNotFoundError(str(error)) from error
            if isinstance(error, duckdb.IOException):
                raise
            raise QueryRefused(str(error).strip()) from error


def reads_statistics(sql: str) -> bool:
    """Return whether a statement names a view over estimates, which take time to make.

    A name in a string counts too, as it may be that of a table function.
    """
    return re.search(rf"\b({'|'.join(STATISTICS_VIEWS)})\b", sql, re.IGNORECASE) is not None


def _make_views(connection: duckdb.DuckDBPyConnection, files: _Files, selects: _Selects) -> None:
    """Make a run's views; those over estimates are empty yet."""
    for name, schema in STATISTICS.items():
        connection.register(f"estimated_{name}", schema.empty_table())
    statements = view_statements(
        files.tables,
        scores=selects.scores,
        commits=selects.commits,
        statistics={name: f"FROM estimated_{name}" for name in STATISTICS},
    )
    for statement in statements:
        connection.execute(statement)


def _statistics(
    connection: duckdb.DuckDBPyConnection, run: Run, files: _Files
) -> dict[str, pa.Table]:
    """Return the run's statistics: those that are kept, or new ones, which are kept then."""
    kept = kept_statistics(run, files.key)
    if kept is not None:
        return kept
    tables = make_statistics(connection)
    ((scores,),) = connection.execute("SELECT count(*) FROM scores").fetchall()
    if scores:
        keep_statistics(run, files.key, tables, scores=scores)
    return tables


def write_catalog(run: Run) -> None:
    """Write a local run's `catalog.duckdb` unless it is there, all of it or nothing."""
    if not isinstance(run.storage, LocalStorage):
        return
    write_empty_statistics(run)
    if not run.storage.exists(CATALOG):
        run.storage.create(CATALOG, _catalog(Path(run.location)))


def _catalog(folder: Path) -> bytes:
    tables = {table: f"{table}.parquet" for table in TABLES}
    parts = ["parts/*.parquet", "packs/*.parquet"]
    statements = view_statements(
        tables,
        scores=scores_of(parts, where=IS_LIVE),
        commits=commits_of(parts, where=IS_LIVE),
        statistics={table: select_kept(table) for table in STATISTICS},
    )
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, CATALOG)
        with duckdb.connect(str(path)) as connection:
            connection.execute(f"SET file_search_path = {quoted(str(folder))}")
            for statement in statements:
                connection.execute(statement)
        return path.read_bytes()


def _connect() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
        config={
            # What does not fit in memory, rather than in the user's folder.
            "temp_directory": str(Path(tempfile.gettempdir(), f"dqf-{os.getpid()}.duckdb")),
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
