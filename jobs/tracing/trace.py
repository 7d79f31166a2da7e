"""Tracing a plan: its run is opened or made, and its remaining units are traced."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jobs.cluster.connection import Cluster
from jobs.pool.driver import drive_run
from jobs.pool.limits import Limits
from jobs.pool.worker import Worker
from jobs.query.catalog import write_catalog
from jobs.query.select import run_query
from jobs.runs.progress import Note, Progress
from jobs.runs.provenance import manifest_of
from jobs.runs.trace_run import TraceRun, create_run
from jobs.tracing.plan import CheckedPlan
from jobs.tracing.tracer import TraceWorker
from schemas.errors import DqfError


def prepare_run(location: str | Path, planned: CheckedPlan) -> TraceRun:
    """Return the run of a plan at `location`, made if there is none.

    StoreError: another plan's run is there, the model has changed since, or it cannot be written.
    """
    plan = planned.plan
    manifest = manifest_of(model=plan.model, scorer=plan.scorer)
    return create_run(
        location, plan, manifest, planned.components, steps=planned.steps, sets=planned.sets
    )


def trace_run(
    run: TraceRun,
    *,
    cluster: Cluster,
    rows: int | None,
    offload: bool | None = None,
    limits: Limits,
    retry_failed: bool,
    on_progress: Callable[[Progress], None],
    note: Note,
    worker_class: type[Worker[Any]] = TraceWorker,
    options: Mapping[str, Any] | None = None,
) -> Progress:
    """Trace the remaining units of a run on Ray and return its progress; its statistics are kept.

    `rows` bounds the rows of a batch; with None each worker measures the fastest batch size of its
    device. `offload` is that of `open_model`, and changes no score. `worker_class` and its
    `options` replace the workers that open the run's model. With `retry_failed` only the units that
    have failed are tried, once more. TooManyFailures, StoreError, ModelUnavailable: the run cannot
    continue. Interrupted: a signal came.
    """
    run.complete()
    write_catalog(run)
    progress = drive_run(
        run,
        cluster=cluster,
        worker_class=worker_class,
        options=options or {"rows": rows, "offload": offload},
        limits=limits,
        retry_failed=retry_failed,
        on_progress=on_progress,
        note=note,
    )
    try:  # for the next reader of the catalog: no score depends on it
        run_query(run, "SELECT count(*) FROM ranking")
    except DqfError as error:
        note(
            f"the run is done, its statistics are not: {error}; "
            f"`dqf rank {run.argument}` makes them"
        )
    return progress
