"""The work of an actor: it opens the models once, traces the units of a chunk and commits them."""

import logging
import math
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from jobs.runs.packs import pack
from jobs.runs.parts import Failure
from jobs.runs.provenance import code_hash
from jobs.runs.run import IdentifiedUnit, Row, Run, Task, TaskDone
from schemas.errors import NotFinite

logger = logging.getLogger(__name__)


U = TypeVar("U")
C = TypeVar("C", contravariant=True)


class Tracer(Protocol[C]):
    """The part of a worker that scores a unit with the model."""

    def score_rows(self, row: IdentifiedUnit[C]) -> Sequence[Row]:
        """Return a unit's rows of the run's table; whatever it raises is recorded."""
        ...


class Worker(Generic[U]):
    """Works on the tasks of one run; a plain class, which the pool wraps as an actor."""

    def __init__(self, run: Run[U], tracer: Tracer[U]) -> None:
        """Work on a run, whose units `tracer` scores."""
        self._run = run
        self._tracer = tracer

    def ready(self) -> str:
        """Return the hash of the worker's code, once the models are open."""
        return code_hash()

    def run(self, task: Task) -> TaskDone:
        """Trace and commit a task, unless it is committed; a unit that raises is recorded."""
        start = time.monotonic()
        unit_rows = self._run.unit_rows(task)
        if self._run.is_done(task):
            return TaskDone(units=len(unit_rows))
        rows: list[Row] = []
        failures: list[Failure] = []
        for unit_row in unit_rows:
            unit_scores, failure = self._traced(unit_row)
            rows += unit_scores
            failures += [failure] if failure else []
        self._run.commit(task, rows, failures, units=len(unit_rows))
        return TaskDone(
            units=len(unit_rows),
            errors=tuple(failure.error for failure in failures),
            seconds=time.monotonic() - start,
        )

    def trace(self, task: Task, index: int) -> tuple[Sequence[Row], Failure | None]:
        """Return one unit's score rows, or its failure; nothing is committed."""
        return self._traced(self._run.unit_rows(task)[index])

    def pack(self, group: int) -> None:
        """Pack a group of chunks; CorruptPart if a part of it is damaged."""
        pack(self._run, group)

    def _traced(self, unit_row: IdentifiedUnit[U]) -> tuple[Sequence[Row], Failure | None]:
        try:
            rows = self._tracer.score_rows(unit_row)
            refuse_not_finite(rows)
            return rows, None
        except Exception as error:
            logger.exception("unit %s failed", unit_row.unit_id)
            return [], failure_of(unit_row.unit_id, error)


def refuse_not_finite(rows: Sequence[Mapping[str, object]]) -> None:
    """Raise NotFinite if a row holds NaN or an infinity: no table of a run does."""
    for row in rows:
        for column, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                of = ", ".join(str(row[key]) for key in ("component", "measure") if key in row)
                raise NotFinite(f"{column} is {value} ({of})" if of else f"{column} is {value}")


def failure_of(unit_id: str, error: BaseException) -> Failure:
    """Return the record of a unit's error."""
    return Failure(
        unit_id=unit_id,
        error=type(error).__name__,
        message=str(error),
        traceback="".join(traceback.format_exception(error)),
    )
