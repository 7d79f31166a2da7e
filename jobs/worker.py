"""What an actor does: open the models once, trace the units of a chunk, commit them."""

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.store import Failure, Run, unit_of
from schemas.plan import Unit

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkDone:
    """What a committed chunk held."""

    units: int
    failed: int


class TraceWorker:
    """Traces chunks of one run; a plain class, which the pool wraps as an actor."""

    def __init__(self, run: str, *, rows: int | None, threads: int) -> None:
        """Open the run's scorer and model; ModelUnavailable if one cannot be opened.

        `rows` bounds the rows of a batch; what is best on the device is measured if None.
        """
        import torch

        from engine.calibration import calibrate
        from engine.models import open_model
        from engine.scoring import open_scorer

        if not torch.cuda.is_available():
            torch.set_num_threads(threads)
        self._run = Run(Path(run))
        self._plan = self._run.plan()
        self._scorer = open_scorer(self._plan.scorer)
        self._model = open_model(self._plan.model, dtype=self._plan.numerics.dtype)
        self._rows = rows or calibrate(self._model, self._plan.numerics).rows

    def ready(self) -> bool:
        """Return once the models are open."""
        return True

    def run(self, chunk: int) -> ChunkDone:
        """Trace and commit a chunk; a unit that raises is recorded as failed."""
        unit_rows = self._run.unit_rows(chunk)
        rows, failures = self.trace(unit_rows)
        self._run.commit(chunk, rows, failures)
        return ChunkDone(units=len(unit_rows), failed=len(failures))

    def trace(self, unit_rows: Sequence[dict]) -> tuple[list[dict], list[Failure]]:
        """Return the score rows of units and the failures among them, committing nothing."""
        rows: list[dict] = []
        failures: list[Failure] = []
        for unit_row in unit_rows:
            try:
                rows += self._score_rows(unit_row)
            except Exception as error:
                logger.exception("unit %s failed", unit_row["unit_id"])
                failures.append(failure_of(unit_row["unit_id"], error))
        return rows, failures

    def _score_rows(self, unit_row: dict) -> list[dict]:
        shared = {key: unit_row[key] for key in ("unit_id", "caption_id", "seed", "draw", "part")}
        trials = self._traced(unit_of(unit_row, self._plan))
        return [{**shared, **trial.as_row()} for trial in trials]

    def _traced(self, unit: Unit) -> list:
        """Trace a unit, with half the rows each time memory runs out."""
        import torch

        from engine.calibration import is_out_of_memory
        from engine.tracing import trace_unit

        while True:
            try:
                return trace_unit(
                    self._model,
                    self._scorer,
                    unit,
                    numerics=self._plan.numerics,
                    rows=self._rows,
                    scores=self._plan.scores,
                )
            except RuntimeError as error:
                if not is_out_of_memory(error) or self._rows <= 2:
                    raise
                self._rows = max(2, self._rows // 2)
                logger.warning("out of memory: going on with %d rows", self._rows)
            torch.cuda.empty_cache()


def failure_of(unit_id: str, error: BaseException) -> Failure:
    """Return the record of a unit's error."""
    return Failure(
        unit_id=unit_id,
        error=type(error).__name__,
        message=str(error),
        traceback="".join(traceback.format_exception(error)),
    )
