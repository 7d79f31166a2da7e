"""Processes that open their models, trace one unit to warm up and only then start together."""

import os
import time
from pathlib import Path
from typing import Any

import torch

from engine.model.opening import open_model
from engine.model.scorer import open_scorer
from engine.tracing.trace_unit import trace_unit
from jobs.runs.run import Task
from jobs.runs.trace_run import TraceRun
from jobs.tracing.tracer import TraceWorker

READY = "ready"
"""Folder next to the run, in which every process leaves a file when it is ready."""
POLL_S = 0.005


class WaitingWorker(TraceWorker):
    """A worker that starts when all others are ready, so the opening of models is not measured."""

    def __init__(self, run: str, **options: Any) -> None:
        """Open the models, warm up and wait."""
        super().__init__(run, **options)
        self.trace(Task(chunk=0), 0)
        wait_for_all(Path(run).parent)


def wait_for_all(folder: Path) -> None:
    """Report that this process is ready and wait for the others; the folder holds their number."""
    (folder / READY / str(os.getpid())).touch()
    expected = int((folder / "processes").read_text())
    while len(list((folder / READY).iterdir())) < expected:
        time.sleep(POLL_S)


def start_s(folder: Path) -> float:
    """Return the time at which the last process was ready."""
    return max(file.stat().st_mtime for file in (folder / READY).iterdir())


def trace_share(run: TraceRun, rows: int, next_unit: Any, ends: Any) -> None:
    """Trace units of a run with one thread by the engine alone, and put the time of the end.

    `next_unit` is a counter that the processes share.
    """
    torch.set_num_threads(1)
    plan = run.plan
    model, scorer = open_model(plan.model, dtype=plan.numerics.dtype), open_scorer(plan.scorer)
    units = run.units

    def trace(number: int) -> None:
        trace_unit(
            model, scorer, units[number], numerics=plan.numerics, rows=rows, measures=plan.measures
        )

    trace(0)
    wait_for_all(Path(run.location).parent)
    while (number := _take(next_unit)) < len(units):
        trace(number)
    ends.put(time.time())


def _take(counter: Any) -> int:
    with counter.get_lock():
        counter.value += 1
        return counter.value - 1
