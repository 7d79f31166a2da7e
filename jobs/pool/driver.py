"""Driving a run of any kind on Ray: leftovers of a crash are repaired, and the open tasks are
done."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from jobs.cluster.connection import Cluster, connected
from jobs.pool import attempts
from jobs.pool.actors import WorkerSpec
from jobs.pool.attempts import Attempt, Outcome
from jobs.pool.limits import Limits
from jobs.pool.metrics import DriverMetrics
from jobs.pool.pool import run_tasks
from jobs.pool.signals import noted_signals, sigterm_raises
from jobs.pool.worker import Worker
from jobs.runs.packs import tidy
from jobs.runs.progress import Note, Progress, failed_tasks, open_tasks, progress_of
from jobs.runs.run import Run, Task, TaskDone
from schemas.errors import DqfError, Interrupted, StoreError

logger = logging.getLogger(__name__)

LOG_S = 10.0
"""Seconds between the log's lines on progress."""


def drive_run(
    run: Run[object],
    *,
    cluster: Cluster,
    worker_class: type[Worker[Any]],
    options: Mapping[str, Any],
    limits: Limits,
    retry_failed: bool,
    on_progress: Callable[[Progress], None],
    note: Note,
) -> Progress:
    """Do the run's open tasks with actors of a `Worker` class and return its progress.

    The class takes the run's location, `options` and `threads`, its share of the CPUs. With
    `retry_failed` only the units that have failed are tried, once more.
    TooManyFailures, StoreError, ModelUnavailable: it cannot continue. Interrupted: a signal came.
    """
    attempt = attempts.begin(run)
    try:
        with attempts.logged(run, attempt), sigterm_raises():
            _repair(run, attempt, note)
            tasks = failed_tasks(run) if retry_failed else open_tasks(run)
            _work(
                run, tasks, cluster=cluster, limits=limits, on_progress=on_progress,
                worker_class=worker_class, options=options, note=note,
            )  # fmt: skip
    except BaseException as error:
        with suppress(StoreError):  # what ended the run may be a full disk
            attempts.end(run, attempt, *_outcome(error))
        raise
    attempts.end(run, attempt, Outcome.FINISHED)
    return progress_of(run)


def _outcome(error: BaseException) -> tuple[Outcome, str]:
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return Outcome.STOPPED, ""
    name = "" if isinstance(error, DqfError) else f"{type(error).__name__}: "
    return Outcome.FAILED, f"{name}{error}"


def _repair(run: Run[object], attempt: Attempt, note: Note) -> None:
    """Repair leftovers of a crash, and report them."""
    run.complete()
    for name in tidy(run):
        logger.warning("%s was damaged", name)
        note(f"{name} was damaged: moved to quarantine/, its units are done again")
    for other in attempts.others_alive(run, attempt):
        note(f"process {other.pid} works on this run too: no unit will count twice")
    for name, then, now in attempts.changed_versions(run, attempt):
        note(f"warning: the run was made with {name} {then}, this is {now}")


def _work(
    run: Run[object],
    tasks: Sequence[Task],
    *,
    cluster: Cluster,
    limits: Limits,
    on_progress: Callable[[Progress], None],
    worker_class: type[Worker[Any]],
    options: Mapping[str, Any],
    note: Note,
) -> None:
    progress = progress_of(run)
    on_progress(progress)
    if not tasks:
        return

    logger.info("%d tasks to do, %d of %d units done", len(tasks), progress.done, progress.total)
    next_line = time.monotonic() + LOG_S
    is_retry = tasks[0].generation > 0

    def on_task(done: TaskDone) -> None:
        nonlocal progress, next_line
        progress = _advanced(progress, done, is_retry=is_retry)
        if time.monotonic() > next_line:
            logger.info("%d of %d units, %d failed", progress.done, progress.total, progress.failed)
            next_line = time.monotonic() + LOG_S
        metrics.task_done(done)
        on_progress(progress)

    with connected(cluster) as capacity, noted_signals() as check_signals:
        count = max(1, min(capacity.actors(), len(tasks)))
        note(f"opening {run.plan.model} on {count} actor{'' if count == 1 else 's'}")
        metrics = DriverMetrics(run.name, left=sum(len(run.ordinals(task.chunk)) for task in tasks))
        spec = WorkerSpec(
            worker_class=worker_class,
            options={**options, "threads": _threads(capacity.actors())},
            gpus=capacity.gpus_an_actor,
            target=capacity.actors,
        )
        run_tasks(run, tasks, spec, limits=limits, on_task=on_task, on_turn=check_signals)
    logger.info("%d of %d units done, %d failed", progress.done, progress.total, progress.failed)


def _advanced(progress: Progress, done: TaskDone, *, is_retry: bool) -> Progress:
    """Return the progress after a task; units that are tried again were counted before."""
    if is_retry:
        return replace(progress, failed=progress.failed - done.units + done.failed)
    return replace(progress, done=progress.done + done.units, failed=progress.failed + done.failed)


def _threads(actors: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // max(1, actors))
