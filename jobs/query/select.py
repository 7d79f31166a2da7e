"""SQL over one run or several: one SELECT over their views, as a table or batch by batch."""

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from jobs.query.opened import (
    NO_FILTERS,
    NO_PARAMETERS,
    Filters,
    Parameters,
    Result,
    Views,
    connected,
)
from jobs.query.views import HIDDEN, Source, in_place, read_first
from jobs.runs.run import RELISTS, Run
from schemas.caption_filter import EVERY_CAPTION, CaptionFilter
from schemas.errors import QueryRefused

RESERVED = {"information_schema", "main", "memory", "pg_catalog", "system", "temp"}
"""Names that runs cannot have in SQL, since schemas and databases of DuckDB have them."""

T = TypeVar("T")


def run_query(run: Run[Any], sql: str, parameters: Parameters = NO_PARAMETERS) -> pa.Table:
    """Return the result of one read-only SELECT over the views of a trace, evaluation or attack.

    QueryRefused: it is not exactly one SELECT, reaches outside the run, or DuckDB rejects it.
    """

    def table(source: Source) -> pa.Table:
        with connected({"run": run}, source) as views:
            return views.query(sql, parameters)

    return _first_that_reads(table, [in_place, *[read_first] * RELISTS])


@contextmanager
def opened_views(run: Run[Any], *, only: CaptionFilter = EVERY_CAPTION) -> Generator[Views]:
    """Yield a run's views as they are now, for several queries.

    They are of the captions that pass `only`.
    """
    with _first_opened({"run": run}, lambda views: views, only={"run": only}) as views:
        yield views


@contextmanager
def opened_together(runs: Mapping[str, Run[Any]], *, only: CaptionFilter) -> Generator[Views]:
    """Yield the views of several runs as they are now, each run's in a schema of its name.

    They are of the captions that pass `only`. QueryRefused: a name is one of DuckDB's.
    """
    _check_names(runs)
    with _first_opened(runs, lambda views: views, only=dict.fromkeys(runs, only)) as views:
        yield views


@contextmanager
def open_query(
    runs: Mapping[str, Run[Any]],
    sql: str,
    *,
    as_text: bool = False,
    only: Filters = NO_FILTERS,
) -> Generator[Result]:
    """Yield the result of one read-only SELECT over runs, which is computed while it is read.

    Each run's views are in a schema of its name, the first one's also outside of it, and hold the
    scores of the captions that pass its filter in `only`; `as_text` is that of `Views.stream`.

    QueryRefused: as `run_query`, also while it is read.
    """
    _check_names(runs)
    with _first_opened(runs, lambda views: views.stream(sql, as_text=as_text), only=only) as result:
        yield result


@contextmanager
def _first_opened(
    runs: Mapping[str, Run[Any]], use: Callable[[Views], T], *, only: Filters
) -> Generator[T]:
    """Yield what `use` makes of the views of runs; parts that may be packed are read first."""

    def opened(source: Source) -> tuple[ExitStack, T]:
        with ExitStack() as stack:
            used = use(stack.enter_context(connected(runs, source, only=only)))
            return stack.pop_all(), used

    stack, used = _first_that_reads(opened, [read_first] * (1 + RELISTS))
    with stack:
        yield used


def _check_names(runs: Mapping[str, Run[Any]]) -> None:
    if not runs:
        raise QueryRefused("name a run to query")
    for name in runs:
        if name.lower() in RESERVED or re.fullmatch(rf"{HIDDEN}_\d+", name):
            raise QueryRefused(f"DuckDB has a {name!r} of its own: call the run NAME=RUN")
    if len({name.lower() for name in runs}) < len(runs):
        raise QueryRefused(
            f"SQL ignores capitals, so that two of {', '.join(runs)} are one name: use NAME=RUN"
        )


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
