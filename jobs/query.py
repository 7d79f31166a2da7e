"""SQL over one run or several: one SELECT over their views, as a table or batch by batch."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import duckdb
import pyarrow as pa

from jobs.chunks import RELISTS
from jobs.gate import admitted, connect, lock, temporary_folder
from jobs.parts import EMPTY_PACK, EMPTY_PART
from jobs.store import Run
from schemas.errors import QueryRefused, StoreError, first_line
from schemas.views import TABLES, commits_of, identifier, scores_of, view_statements

BATCH_ROWS = 2**14
"""Rows of a batch: few enough that the first are there soon."""
RECENT = "dqf_recent"
"""Schema of what was read from parts that may be packed meanwhile."""
RESERVED = {RECENT, "information_schema", "main", "memory", "pg_catalog", "system", "temp"}
"""Names that no run has in SQL, since schemas and databases of DuckDB have them."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The rows of a query; they are read once."""

    schema: pa.Schema
    """Names and types of the columns; each name is there once."""
    batches: Iterator[pa.RecordBatch]


def run_query(run: Run, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
    """Return the result of one read-only SELECT statement over a run's views.

    QueryRefused: it is not exactly one SELECT, reaches outside the run, or DuckDB rejects it.
    """

    def table(source: _Source) -> pa.Table:
        with _connected({"run": run}, source) as opened:
            return opened.table(sql, parameters)

    return _first_that_reads(table, [_in_place, *[_read_first] * RELISTS])


@contextmanager
def open_query(runs: Mapping[str, Run], sql: str) -> Iterator[Result]:
    """Give the result of one read-only SELECT over runs, computed while it is read.

    Each run's views are in a schema of its name, the first one's also outside of it. Parts that
    may be packed meanwhile are read first. QueryRefused: as `run_query`, also while it is read.
    """
    _check_names(runs)

    def opened(source: _Source) -> tuple[ExitStack, Result]:
        with ExitStack() as stack:
            result = stack.enter_context(_connected(runs, source)).stream(sql)
            return stack.pop_all(), result

    stack, result = _first_that_reads(opened, [_read_first] * (1 + RELISTS))
    with stack:
        yield result


def _check_names(runs: Mapping[str, Run]) -> None:
    if not runs:
        raise QueryRefused("name a run to query")
    for name in runs:
        if name.lower() in RESERVED:
            raise QueryRefused(f"DuckDB has a {name!r} of its own: call the run NAME=RUN")
    if len({name.lower() for name in runs}) < len(runs):
        raise QueryRefused(f"SQL does not tell capitals apart in {', '.join(runs)}: use NAME=RUN")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """Paths of what a query reads of a run."""

    tables: dict[str, str]
    packs: list[str]
    """Those that count; they stay."""
    parts: list[str]
    """Those that count now; each goes when its group is packed."""

    @property
    def paths(self) -> list[str]:
        return [*self.tables.values(), *self.packs, *self.parts]


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
    )


def _paths(run: Run, names: Sequence[str]) -> list[str]:
    return [str(path) for path in run.storage.local(names)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Selects:
    """The SELECTs that a run's scores and commits come from."""

    scores: str
    commits: str


_Source = Callable[[duckdb.DuckDBPyConnection, _Files], _Selects]


def _in_place(_: duckdb.DuckDBPyConnection, files: _Files) -> _Selects:
    paths = [*files.packs, *files.parts]
    return _Selects(scores=scores_of(paths), commits=commits_of(paths))


def _read_first(connection: duckdb.DuckDBPyConnection, files: _Files) -> _Selects:
    """Read the parts into memory: a query longer than packing takes would never end otherwise."""
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {RECENT}")
    (before,) = connection.execute("SELECT count(*) FROM duckdb_tables()").fetchall()[0]
    scores, commits = f"{RECENT}.scores_{before}", f"{RECENT}.commits_{before}"
    connection.execute(f"CREATE TABLE {scores} AS {scores_of(files.parts)}")
    connection.execute(f"CREATE TABLE {commits} AS {commits_of(files.parts)}")
    return _Selects(
        scores=f"{scores_of(files.packs)} UNION ALL FROM {scores}",
        commits=f"{commits_of(files.packs)} UNION ALL FROM {commits}",
    )


def _first_that_reads(read: Callable[[_Source], T], sources: Sequence[_Source]) -> T:
    """Return what the first source gives whose files are all still there."""
    last: Exception | None = None
    for source in sources:
        try:
            return read(source)
        except (FileNotFoundError, duckdb.IOException) as error:
            last = error
    raise QueryRefused(f"the run cannot be read: {last}") from last


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A locked connection that has the runs' views."""

    connection: duckdb.DuckDBPyConnection
    paths: list[str]
    """Of all that it may read."""

    def table(self, sql: str, parameters: Sequence[object]) -> pa.Table:
        """Return the result of one SELECT."""
        return self._interruptible(lambda: self._select(sql, parameters).to_arrow_table())

    def stream(self, sql: str) -> Result:
        """Return the result of one SELECT, computed batch by batch."""
        reader = self._interruptible(lambda: self._select(sql).to_arrow_reader(BATCH_ROWS))
        fields = zip(reader.schema, _unique(reader.schema.names), strict=True)
        schema = pa.schema([field.with_name(name) for field, name in fields])
        return Result(schema=schema, batches=self._batches(reader, schema))

    def _select(self, sql: str, parameters: Sequence[object] = ()) -> duckdb.DuckDBPyRelation:
        # With parameters DuckDB computes it at once.
        statement = admitted(self.connection, sql)
        return self.connection.sql(statement, params=list(parameters) or None)

    def _batches(self, reader: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        try:
            while (batch := self._interruptible(lambda: next(reader, None))) is not None:
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
        except (FileNotFoundError, duckdb.IOException) as error:
            raise QueryRefused(f"the run cannot be read: {first_line(error)}") from error

    def _interruptible(self, call: Callable[[], T]) -> T:
        """Return what a call gives; Ctrl-C ends the query, which DuckDB alone would not notice."""
        with ThreadPoolExecutor(1) as thread:
            future = thread.submit(call)
            try:
                return future.result()
            except KeyboardInterrupt:
                self.connection.interrupt()
                raise
            except duckdb.Error as error:
                raise self._told(error) from error

    def _told(self, error: duckdb.Error) -> Exception:
        """Return what is raised for an error of DuckDB's."""
        # A locked connection calls a file that is gone a pattern, which it may not expand.
        if not all(map(os.path.exists, self.paths)):
            return FileNotFoundError(str(error))
        if isinstance(error, duckdb.IOException):
            return error
        if isinstance(error, duckdb.OutOfMemoryException):
            return QueryRefused(
                "the query needs more than half of the memory and of the disk for temporary "
                f"files: {first_line(error)}"
            )
        return QueryRefused(str(error).strip())


def _unique(names: Sequence[str]) -> list[str]:
    """Return the names, those that were there before with the first free number behind them."""
    found: list[str] = []
    for name in names:
        number, fresh = 1, name
        while fresh in found:
            number += 1
            fresh = f"{name}_{number}"
        found.append(fresh)
    return found


@contextmanager
def _connected(runs: Mapping[str, Run], source: _Source) -> Iterator[_Opened]:
    """Give a locked connection with a schema of views for each run, the first one's in use."""
    with temporary_folder() as temporary, connect(temporary) as connection:
        paths: list[str] = []
        for name, run in runs.items():
            files = _files(run)
            selects = source(connection, files)
            connection.execute(f"CREATE SCHEMA {identifier(name)}")
            connection.execute(f"USE {identifier(name)}")
            for statement in view_statements(
                files.tables, scores=selects.scores, commits=selects.commits
            ):
                connection.execute(statement)
            paths += files.paths
        connection.execute(f"USE {identifier(next(iter(runs)))}")
        lock(connection, paths)
        yield _Opened(connection=connection, paths=paths)
