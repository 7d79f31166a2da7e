"""Tracing a plan: make its run or find it, and work through what is left."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jobs.cluster.connection import Cluster
from jobs.pool.driver import drive_run
from jobs.pool.limits import Limits
from jobs.query.catalog import write_catalog
from jobs.query.select import run_query
from jobs.runs.progress import Note, Progress
from jobs.runs.provenance import Manifest, manifest_of
from jobs.runs.run import PLAN
from jobs.runs.storage.opening import open_storage
from jobs.runs.trace_run import TraceRun, create_run, open_run
from jobs.tracing.plan import Planned
from jobs.tracing.tracer import TraceWorker
from schemas.errors import DqfError, StoreError
from schemas.plan import TracePlan


def prepare_run(location: str | Path, planned: Planned) -> TraceRun:
    """Return the run of a plan at `location`, made if there is none.

    StoreError: another plan's run is there, the model has changed since, or it cannot be written.
    """
    manifest = manifest_of(model=planned.plan.model, scorer=planned.plan.scorer)
    storage = open_storage(str(location))
    if not storage.exists(PLAN) and storage.holds_anything():
        raise StoreError(f"{location} exists and is no run: choose another --run")
    plan, components = planned.plan, planned.components
    run = create_run(location, plan, manifest, components, steps=planned.steps)
    _check_same(run, plan)
    _check_models(run, manifest)
    return run


def resume_run(location: str) -> TraceRun:
    """Return an old run to go on with; StoreError if its model or scorer has changed since."""
    run = open_run(location)
    _check_models(run, manifest_of(model=run.plan.model, scorer=run.plan.scorer))
    return run


def trace_run(
    run: TraceRun,
    *,
    cluster: Cluster,
    rows: int | None,
    limits: Limits,
    retry_failed: bool,
    on_progress: Callable[[Progress], None],
    note: Note,
    worker_class: type = TraceWorker,
    options: Mapping[str, Any] | None = None,
) -> Progress:
    """Trace what the run lacks on Ray and return where it stands; its statistics are kept.

    `rows` bounds the rows of a batch; each worker measures what is best on its device if None.
    `worker_class` and its `options` are for other workers than those that open the run's model.
    With `retry_failed` only the units that have failed are tried, once more.
    TooManyFailures, StoreError, ModelUnavailable: it cannot go on. Interrupted: a signal came.
    """
    run.complete()
    write_catalog(run)
    progress = drive_run(
        run,
        cluster=cluster,
        worker_class=worker_class,
        options=options or {"rows": rows},
        limits=limits,
        retry_failed=retry_failed,
        on_progress=on_progress,
        note=note,
    )
    try:  # for who opens the catalog next: no score depends on it
        run_query(run, "SELECT count(*) FROM ranking")
    except DqfError as error:
        note(f"the run is done, its statistics are not: {error}; `dqf rank` makes them")
    return progress


def _check_same(run: TraceRun, plan: TracePlan) -> None:
    old, new = run.plan.model_dump(), plan.model_dump()
    differing = [name for name in new if new[name] != old[name]]
    if differing:
        raise StoreError(
            f"run {run.location} was made with another {' and '.join(differing)}: "
            "choose another --run, or give the same options to resume it"
        )


def _check_models(run: TraceRun, now: Manifest) -> None:
    old = run.manifest
    for name in ("model", "scorer"):
        if getattr(old, f"{name}_hash") != getattr(now, f"{name}_hash"):
            raise StoreError(
                f"run {run.location} was made with another {name}_hash: the {name} "
                f"{getattr(run.plan, name)!r} has changed since; trace it under another --run"
            )
