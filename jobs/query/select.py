"""SQL over one run or several: one SELECT over their views, as a table or batch by batch."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import TypeVar

import duckdb
import pyarrow as pa

from jobs.query.damage import DamagedRun, damage_named, damaged_file
from jobs.query.gate import admitted, connect, lock, temporary_folder
from jobs.query.views import (
    HIDDEN,
    Files,
    Source,
    files_of,
    fill_statistics,
    in_place,
    make_views,
    read_first,
    reads_statistics,
)
from jobs.runs.run import RELISTS
from jobs.runs.trace_run import TraceRun
from schemas.errors import QueryRefused, first_line
from schemas.views import identifier

BATCH_ROWS = 2**14
"""Rows of a batch, few enough that the first arrive soon."""
RESERVED = {"information_schema", "main", "memory", "pg_catalog", "system", "temp"}
"""Names that runs cannot have in SQL, since schemas and databases of DuckDB have them."""

FOREIGN_TYPES = re.compile(r"\b(DATE|TIME\w*|INTERVAL|BLOB|BIT|BIGNUM)\b")
"""Types that DuckDB prints and Python lacks: years beyond 9999, 24:00, bits."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The rows of a query; they are read once."""

    schema: pa.Schema
    """Names and types of the columns; names are unique."""
    batches: Iterator[pa.RecordBatch]


def run_query(run: TraceRun, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
    """Return the result of one read-only SELECT statement over a run's views.

    QueryRefused: it is not exactly one SELECT, reaches outside the run, or DuckDB rejects it.
    """

    def table(source: Source) -> pa.Table:
        with _connected({"run": run}, source, sql=sql) as opened:
            return opened.table(parameters)

    return _first_that_reads(table, [in_place, *[read_first] * RELISTS])


@contextmanager
def open_query(
    runs: Mapping[str, TraceRun], sql: str, *, as_text: bool = False
) -> Iterator[Result]:
    """Yield the result of one read-only SELECT over runs, which is computed while it is read.

    Each run's views are in a schema of its name, the first one's also outside of it. Parts that
    may be packed meanwhile are read first. With `as_text`, values that Python lacks, such as
    dates beyond its years, become text as SQL prints them.

    QueryRefused: as `run_query`, also while it is read.
    """
    _check_names(runs)

    def opened(source: Source) -> tuple[ExitStack, Result]:
        with ExitStack() as stack:
            result = stack.enter_context(_connected(runs, source, sql=sql)).stream(as_text)
            return stack.pop_all(), result

    stack, result = _first_that_reads(opened, [read_first] * (1 + RELISTS))
    with stack:
        yield result


def _check_names(runs: Mapping[str, TraceRun]) -> None:
    if not runs:
        raise QueryRefused("name a run to query")
    for name in runs:
        if name.lower() in RESERVED or re.fullmatch(rf"{HIDDEN}_\d+", name):
            raise QueryRefused(f"DuckDB has a {name!r} of its own: call the run NAME=RUN")
    if len({name.lower() for name in runs}) < len(runs):
        raise QueryRefused(f"SQL does not tell capitals apart in {', '.join(runs)}: use NAME=RUN")


def _first_that_reads(read: Callable[[Source], T], sources: Sequence[Source]) -> T:
    """Return the result of the first source whose files all still exist."""
    last: Exception | None = None
    for source in sources:
        try:
            return read(source)
        except (FileNotFoundError, duckdb.IOException) as error:
            last = error
        except RuntimeError as error:
            # DuckDB reports Ctrl-C during the views' creation in this way.
            if "interrupted" not in str(error):
                raise
            raise KeyboardInterrupt from error
    raise QueryRefused(f"the run cannot be read: {last}") from last


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A locked connection that has the runs' views."""

    connection: duckdb.DuckDBPyConnection
    paths: list[str]
    """Paths of all files that it may read."""
    statement: str
    """The statement that it was opened for."""
    repair: str
    """The user's remedy for a damaged file."""

    def table(self, parameters: Sequence[object]) -> pa.Table:
        """Return the result."""
        # With parameters DuckDB computes it at once.
        return self._interruptible(
            lambda: self.connection.sql(
                self.statement, params=list(parameters) or None
            ).to_arrow_table()
        )

    def stream(self, as_text: bool) -> Result:
        """Return the result, computed batch by batch."""

        def opened() -> pa.RecordBatchReader:
            rows = self.connection.sql(self.statement)
            return (_with_text(rows) if as_text else rows).to_arrow_reader(BATCH_ROWS)

        reader = self._interruptible(opened)
        fields = zip(reader.schema, _unique(reader.schema.names), strict=True)
        schema = pa.schema([field.with_name(name) for field, name in fields])
        return Result(schema=schema, batches=self._batches(reader, schema))

    def _batches(self, reader: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        try:
            while (batch := self._interruptible(lambda: next(reader, None))) is not None:
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
        except (FileNotFoundError, duckdb.IOException) as error:
            raise QueryRefused(f"the run cannot be read: {first_line(error)}") from error

    def _interruptible(self, call: Callable[[], T]) -> T:
        """Return the result of a call; Ctrl-C ends the query, which DuckDB alone would not
        notice."""
        future = Future[T]()

        def work() -> None:
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                future.set_exception(error)

        thread = Thread(target=work, daemon=True)
        try:
            thread.start()
            return future.result()
        except (KeyboardInterrupt, SystemExit):
            # An interrupt before DuckDB has begun is lost.
            while thread.is_alive():
                self.connection.interrupt()
                thread.join(0.1)
            raise
        except duckdb.Error as error:
            raise self._told(error) from error

    def _told(self, error: duckdb.Error) -> Exception:
        """Return the error to raise for an error of DuckDB."""
        # A locked connection reports a missing file as a pattern that it may not expand.
        if not all(map(os.path.exists, self.paths)):
            return FileNotFoundError(str(error))
        if path := damaged_file(self.paths, error):
            return DamagedRun(f"{path} is damaged: {self.repair}")
        if isinstance(error, duckdb.IOException):
            return error
        if isinstance(error, duckdb.OutOfMemoryException):
            return QueryRefused(
                "the query needs more than half of the memory and of the disk for temporary "
                f"files: {first_line(error)}"
            )
        return QueryRefused(str(error).strip())


def _with_text(rows: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Return rows in which values of types that Python lacks are text."""
    names, types = rows.columns, [str(kind) for kind in rows.types]
    if not any(map(FOREIGN_TYPES.search, types)) or len(set(map(str.lower, names))) < len(names):
        return rows
    columns = [
        f"CAST({identifier(name)} AS VARCHAR) AS {identifier(name)}"
        if FOREIGN_TYPES.search(kind)
        else identifier(name)
        for name, kind in zip(names, types, strict=True)
    ]
    return rows.project(", ".join(columns))


def _unique(names: Sequence[str]) -> list[str]:
    """Return the names; repeated ones get the first free number as a suffix."""
    found: dict[str, None] = {}
    numbers: dict[str, int] = {}
    for name in names:
        fresh = name
        while fresh in found:
            numbers[name] = numbers.get(name, 1) + 1
            fresh = f"{name}_{numbers[name]}"
        found[fresh] = None
    return list(found)


@contextmanager
def _connected(runs: Mapping[str, TraceRun], source: Source, *, sql: str) -> Iterator[_Opened]:
    """Yield a locked connection with the inputs of a statement and the first run's views in use.

    Statistics are made, and kept in the run's folder, only for a statement that the gate admits.
    """
    files = {name: files_of(run) for name, run in runs.items()}
    with temporary_folder() as temporary, connect(temporary) as connection:
        for number, (name, run) in enumerate(runs.items()):
            hidden = f"{HIDDEN}_{number}"
            with _damage_named(run, files[name]):
                make_views(connection, name, files[name], source=source, hidden=hidden)
        statement = admitted(connection, sql)
        for number, (name, run) in enumerate(runs.items()):
            if reads_statistics(statement):
                connection.execute(f"USE {identifier(name)}")
                with _damage_named(run, files[name]):
                    fill_statistics(connection, run, files[name], hidden=f"{HIDDEN}_{number}")
        connection.execute(f"USE {identifier(next(iter(runs)))}")
        paths = [path for read in files.values() for path in read.paths]
        lock(connection, paths)
        repair = " and ".join(map(_repair, runs.values()))
        yield _Opened(connection=connection, paths=paths, statement=statement, repair=repair)


def _damage_named(run: TraceRun, files: Files) -> AbstractContextManager[None]:
    return damage_named(files.paths, location=run.location, repair=_repair(run))


def _repair(run: TraceRun) -> str:
    return f"`dqf doctor {run.location} --repair` puts it right"
