"""The views of runs on a locked connection, which answers one SELECT after another."""

# pyright: reportUnknownMemberType=false
# pyarrow leaves parts of some methods without types.

import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from threading import Thread
from types import MappingProxyType
from typing import Any, TypeVar, cast

import duckdb
import pyarrow as pa

from engine.files import temporary_folder
from jobs.query.damage import DamagedRun, damage, damage_named, damaged_file, unopened_file
from jobs.query.gate import admitted, connect, lock
from jobs.query.views import (
    HIDDEN,
    Files,
    Source,
    files_of,
    fill_statistics,
    make_views,
)
from jobs.runs.run import Run
from jobs.runs.trace_run import TraceRun
from schemas.caption_filter import EVERY_CAPTION, CaptionFilter
from schemas.errors import QueryRefused, StatementRefused, first_line
from schemas.views import STATISTICS_VIEWS, identifier

BATCH_ROWS = 2**14
"""Rows of a batch, few enough that the first arrive soon."""

FOREIGN_TYPES = re.compile(r"\b(DATE|TIME\w*|INTERVAL|BLOB|BIT|BIGNUM|UHUGEINT|VARIANT)\b")
"""Types that DuckDB prints and Python lacks: years beyond 9999, 24:00, bits; Arrow lacks 2**127."""

LACKED_TYPES = re.compile(r"\b(UHUGEINT|BIT|BIGNUM|VARIANT|TIME WITH TIME ZONE)\b")
"""Types of which Arrow would hold other numbers, bytes without a meaning, or no time zone."""
QUOTED = re.compile("'[^']*'|\"[^\"]*\"")
"""Labels and names inside the text of a type, which are not types."""

Parameters = Mapping[str, object]
"""Values of the `$name`s in a statement."""
NO_PARAMETERS: Parameters = MappingProxyType({})
Filters = Mapping[str, CaptionFilter]
"""Which captions are read of each run, by its name; of others all are."""
NO_FILTERS: Filters = MappingProxyType({})

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The rows of a query; they are read once."""

    schema: pa.Schema
    """Names and types of the columns; names are unique."""
    batches: Iterator[pa.RecordBatch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """A locked connection that has the views of runs; those of the first are in use."""

    connection: duckdb.DuckDBPyConnection
    runs: Mapping[str, Run[Any]]
    """By the name of the schema that has their views."""
    files: Mapping[str, Files]
    """The files that the views read; no other may be read."""
    filters: Filters
    """Which captions each run's views are of."""
    filled: set[str] = field(default_factory=set[str])
    """Names of the runs whose views over estimates are filled."""

    @property
    def run(self) -> TraceRun:
        """The first run, which is a trace."""
        first = next(iter(self.runs.values()))
        assert isinstance(first, TraceRun)
        return first

    @property
    def only(self) -> CaptionFilter:
        """Which captions the first run's views are of."""
        return next(iter(self.filters.values()))

    def query(self, sql: str, parameters: Parameters = NO_PARAMETERS) -> pa.Table:
        """Return the result of one read-only SELECT.

        QueryRefused: it is not exactly one SELECT, reaches outside the runs, or DuckDB rejects it.
        """
        statement = self._admitted(sql)
        # With parameters DuckDB computes it at once.
        return self._interruptible(
            lambda: _of_arrow(
                self.connection.sql(statement, params=dict(parameters) or None)
            ).to_arrow_table()
        )

    def stream(self, sql: str, *, as_text: bool = False) -> Result:
        """Return the result of one read-only SELECT, computed batch by batch; errors as `query`.

        With `as_text`, values that Python lacks, such as dates beyond its years, become text as
        SQL prints them.
        """
        statement = self._admitted(sql)

        def opened() -> pa.RecordBatchReader:
            rows = self.connection.sql(statement)
            shown = _with_text(rows) if as_text else _of_arrow(rows)
            return shown.to_arrow_reader(BATCH_ROWS)

        reader = self._interruptible(opened)
        fields = zip(
            cast("Iterable[pa.Field[Any]]", reader.schema),
            _unique(reader.schema.names),
            strict=True,
        )
        schema = pa.schema([field.with_name(name) for field, name in fields])
        return Result(schema=schema, batches=self._batches(reader, schema))

    def _admitted(self, sql: str) -> str:
        """Return the statement of `sql`, once the statistics that it reads are made."""
        statement = admitted(self.connection, sql)
        if not statement.reads.isdisjoint(STATISTICS_VIEWS):
            self._fill()
        return statement.sql

    def _fill(self) -> None:
        """Fill the views over estimates of the runs whose views are not filled yet."""
        for number, (name, run) in enumerate(self.runs.items()):
            if name not in self.filled and isinstance(run, TraceRun):
                self.connection.execute(f"USE {identifier(name)}")
                with _damage_named(run, self.files[name]):
                    hidden = f"{HIDDEN}_{number}"
                    fill_statistics(
                        self.connection,
                        run,
                        self.files[name],
                        hidden=hidden,
                        is_filtered=bool(self.filters[name]),
                    )
                self.filled.add(name)
        self.connection.execute(f"USE {identifier(next(iter(self.runs)))}")

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
        except (pa.ArrowException, OSError) as error:  # DuckDB's, while batches are read
            raise self._told(duckdb.Error(str(error))) from error

    def _told(self, error: duckdb.Error) -> Exception:
        """Return the error to raise for an error of DuckDB."""
        paths = [path for files in self.files.values() for path in files.paths]
        # A locked connection reports a missing file as a pattern that it may not expand.
        if not all(map(os.path.exists, paths)):
            return FileNotFoundError(str(error))
        if unopened := unopened_file(error):
            return unopened
        if path := damaged_file(paths, error):
            repair = " and ".join(run.repair_hint for run in self.runs.values())
            return DamagedRun(f"{damage(path, error)}: {repair}")
        if isinstance(error, duckdb.IOException):
            return error
        if isinstance(error, duckdb.OutOfMemoryException):
            return QueryRefused(
                "the query needs more than half of the memory and of the disk for temporary "
                f"files: {first_line(error)}"
            )
        return StatementRefused(str(error).strip())


@contextmanager
def connected(
    runs: Mapping[str, Run[Any]], source: Source, *, only: Filters = NO_FILTERS
) -> Generator[Views]:
    """Yield the views of runs, each run's in a schema of its name.

    Scores are those of the captions that pass the run's filter in `only`.
    Statistics are made, and kept in a run's folder, only for a statement that reads them.
    """
    files = {name: files_of(run) for name, run in runs.items()}
    filters = {name: only.get(name, EVERY_CAPTION) for name in runs}
    with temporary_folder("query") as temporary, connect(temporary) as connection:
        for number, (name, run) in enumerate(runs.items()):
            hidden = f"{HIDDEN}_{number}"
            with _damage_named(run, files[name]):
                make_views(
                    connection,
                    name,
                    run,
                    files[name],
                    source=source,
                    hidden=hidden,
                    only=filters[name],
                )
        connection.execute(f"USE {identifier(next(iter(runs)))}")
        lock(connection, [path for read in files.values() for path in read.paths])
        yield Views(connection=connection, runs=runs, files=files, filters=filters)


def _damage_named(run: Run[Any], files: Files) -> AbstractContextManager[None]:
    return damage_named(files.paths, location=run.location, repair=run.repair_hint)


def _of_arrow(rows: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Return rows; QueryRefused: they have a type of which Arrow would hold other values."""
    for name, kind in zip(rows.columns, rows.types, strict=True):
        if found := LACKED_TYPES.search(QUOTED.sub("", str(kind))):
            raise QueryRefused(f"column {name} is a {found[0]}, which Parquet lacks: CAST it")
    return rows


def _with_text(rows: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Return rows in which values of types that Python lacks are text."""
    types = [str(kind) for kind in rows.types]
    if not any(map(FOREIGN_TYPES.search, types)):
        return rows
    # By their places, as several may have one name.
    columns = [
        f"CAST(#{n} AS VARCHAR) AS {identifier(name)}"
        if FOREIGN_TYPES.search(kind)
        else f"#{n} AS {identifier(name)}"
        for n, (name, kind) in enumerate(zip(rows.columns, types, strict=True), 1)
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
