"""Opening a run whose kind is not known."""

from pathlib import Path
from typing import Any

from jobs.runs.attack_run import AttackRun
from jobs.runs.evaluation_run import EvaluationRun
from jobs.runs.opening import open_as
from jobs.runs.run import PLAN, Run
from jobs.runs.storage.opening import open_storage
from jobs.runs.trace_run import TraceRun

KINDS: tuple[type[Run[Any]], ...] = (TraceRun, EvaluationRun, AttackRun)


def open_any(location: str | Path) -> Run[Any]:
    """Return the trace, evaluation or attack at `location`, whichever its plan is of.

    StoreError: there is none that this dqf reads.
    """
    storage = open_storage(str(location))
    if storage.exists(PLAN):
        for kind in KINDS:
            if kind(storage).version is not None:
                return open_as(kind, location)
    return open_as(TraceRun, location)
