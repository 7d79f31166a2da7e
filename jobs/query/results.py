"""Reading runs from Python: open one, rank its components, get effects, query, all as Arrow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.query.rank import Choice, check_choice, ranked
from jobs.query.select import open_query, opened_views, run_query
from jobs.runs.run import Run
from jobs.runs.trace_run import TraceRun
from jobs.runs.trace_run import open_run as _open_run
from schemas.errors import PlanError, QueryRefused
from schemas.intervention import Intervention
from schemas.printable import shown


def open_run(location: str | Path) -> TraceRun:
    """Return the run in a folder or at an s3:// or gs:// URL.

    StoreError: there is none, or it was made by another version of dqf.
    """
    return _open_run(location)


def rank(
    run: TraceRun,
    *,
    attribute: str | None = None,
    part: str | None = None,
    measure: str | None = None,
    intervention: str = Intervention.RESTORE,
) -> pa.Table:
    """Return the rows of the view `ranking`, the largest effect of each attribute and part first.

    PlanError: the run has no such attribute, part, measure or intervention.
    """
    choice = Choice(attribute=attribute, part=part, measure=measure, intervention=intervention)
    check_choice(_trace(run), choice)
    with opened_views(run) as views:
        return ranked(views, choice)


def effects(run: TraceRun) -> pa.Table:
    """Return the view `effects`: one row per patched run and measure, with its effects."""
    return run_query(_trace(run), "FROM effects")


def query(runs: Run[Any] | Mapping[str, Run[Any]], sql: str) -> pa.Table:
    """Return the result of one SELECT over a trace, evaluation or attack, or over several by
    their names in SQL.

    QueryRefused: it is anything but one SELECT over their views, or DuckDB rejects it.
    """
    if not isinstance(sql, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise QueryRefused(f"give a SELECT statement as text, not {shown(sql)}")
    if isinstance(runs, Run):
        return run_query(runs, sql)
    is_named = isinstance(runs, Mapping)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not is_named or not all(_is_named(*each) for each in runs.items()):
        raise QueryRefused(
            f"give an opened run, or several by name: {{'a': run}}, not {shown(runs)}"
        )
    with open_query(runs, sql) as result:
        return pa.Table.from_batches(list(result.batches), schema=result.schema)


def _trace(run: object) -> TraceRun:
    """Return a run; PlanError if it is none that `open_run` returned."""
    if not isinstance(run, TraceRun):
        raise PlanError(f"give a run that dqf.open_run returned, not {shown(run)}")
    return run


def _is_named(name: object, run: object) -> bool:
    return isinstance(name, str) and bool(name) and isinstance(run, Run)
