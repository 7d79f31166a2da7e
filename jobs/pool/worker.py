"""What an actor does: open the models once, trace the units of a chunk, commit them."""

import logging
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from jobs.pool.metrics import WorkerMetrics
from jobs.runs.kept_images import keep_images, picked_units
from jobs.runs.packs import pack
from jobs.runs.parts import Failure
from jobs.runs.provenance import code_hash
from jobs.runs.run import ChunkedRun, Task, UnitRow
from jobs.runs.trace_run import Run, open_run
from schemas.plan import Trial, Unit

if TYPE_CHECKING:
    from engine.tracing.kept import Keeper

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDone:
    """What a committed task held."""

    units: int
    errors: tuple[str, ...] = ()
    """The name of the error of each unit that failed."""
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """The number of units that failed."""
        return len(self.errors)


class Tracer(Protocol):
    """What scores a unit: the model's side of a worker."""

    def score_rows(self, row: UnitRow[Any]) -> list[dict]:
        """Return a unit's rows of the run's table; whatever it raises is recorded."""
        ...


class Worker:
    """Works on the tasks of one run; a plain class, which the pool wraps as an actor."""

    def __init__(self, run: ChunkedRun[Any], tracer: Tracer) -> None:
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
        rows: list[dict] = []
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

    def trace(self, task: Task, index: int) -> tuple[list[dict], Failure | None]:
        """Return one unit's score rows, or its failure; nothing is committed."""
        return self._traced(self._run.unit_rows(task)[index])

    def pack(self, group: int) -> None:
        """Pack a group of chunks; CorruptPart if a part of it is damaged."""
        pack(self._run, group)

    def _traced(self, unit_row: UnitRow[Any]) -> tuple[list[dict], Failure | None]:
        try:
            return self._tracer.score_rows(unit_row), None
        except Exception as error:
            logger.exception("unit %s failed", unit_row.unit_id)
            return [], failure_of(unit_row.unit_id, error)


class TraceWorker(Worker):
    """A worker that traces units with the run's model and scorer."""

    def __init__(self, location: str, *, rows: int | None, threads: int) -> None:
        """Open the run's scorer and model; ModelUnavailable if one cannot be opened.

        `rows` bounds the rows of a batch; what is best on the device is measured if None.
        """
        run = open_run(location)
        super().__init__(run, ModelTracer(run, rows=rows, threads=threads))


class ModelTracer:
    """Scores units by tracing them on this process's device."""

    def __init__(self, run: Run, *, rows: int | None, threads: int) -> None:
        import torch

        from engine.model.calibration import calibrate
        from engine.model.hooks import count_rows
        from engine.model.opening import open_model
        from engine.model.scorer import open_scorer

        if not torch.cuda.is_available():
            torch.set_num_threads(threads)
        self._run = run
        self._plan = run.plan
        self._picked = frozenset(picked_units(run))
        self._scorer = open_scorer(self._plan.scorer)
        self._model = open_model(self._plan.model, dtype=self._plan.numerics.dtype)
        self._rows = rows or calibrate(self._model, self._plan.numerics).rows
        self._metrics = WorkerMetrics(run.name)
        count_rows(self._model.unet, self._metrics.rows)

    def score_rows(self, row: UnitRow[Unit]) -> list[dict]:
        """Return the score rows of a unit; its images are kept if the rule picks it."""
        unit = row.unit
        shared = {
            "unit_id": row.unit_id,
            "caption_id": unit.caption.id,
            "seed": unit.seed,
            "draw": unit.draw,
            "part": unit.part.value,
        }
        trials, keeper = self._trials(unit, keeps_images=row.unit_id in self._picked)
        if keeper:
            self._keep(row, keeper)
        if self._model.device.type == "cuda":
            self._metrics.memory(*_gpu_memory())
        return [{**shared, **trial.as_row()} for trial in trials]

    def _keep(self, row: UnitRow[Unit], keeper: "Keeper") -> None:
        """Write a unit's images; whatever that raises, its scores are kept."""
        try:
            keep_images(self._run, row.unit_id, row.unit, keeper)
        except Exception:
            logger.exception("the images of unit %s are not kept", row.unit_id)

    def _trials(self, unit: Unit, *, keeps_images: bool) -> "tuple[list[Trial], Keeper | None]":
        """Trace a unit, with half the rows each time memory runs out."""
        import torch

        from engine.model.calibration import is_out_of_memory
        from engine.tracing.kept import Keeper
        from engine.tracing.trace_unit import trace_unit

        while True:
            keeper = Keeper.of(self._plan.scores, unit.interventions) if keeps_images else None
            try:
                trials = trace_unit(
                    self._model,
                    self._scorer,
                    unit,
                    numerics=self._plan.numerics,
                    rows=self._rows,
                    scores=self._plan.scores,
                    keeper=keeper,
                )
                return trials, keeper
            except RuntimeError as error:
                if not is_out_of_memory(error) or self._rows <= 2:
                    raise
                self._rows = max(2, self._rows // 2)
                logger.warning("out of memory: going on with %d rows", self._rows)
            torch.cuda.empty_cache()


def _gpu_memory() -> tuple[str, int]:
    """Return the name of this process's GPU and the most bytes that it has held there."""
    import torch

    return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()


def failure_of(unit_id: str, error: BaseException) -> Failure:
    """Return the record of a unit's error."""
    return Failure(
        unit_id=unit_id,
        error=type(error).__name__,
        message=str(error),
        traceback="".join(traceback.format_exception(error)),
    )
