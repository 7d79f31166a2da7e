"""The worker of a trace: opens the model once and scores units on this process's device."""

import logging
from typing import TYPE_CHECKING

from jobs.pool.metrics import WorkerMetrics
from jobs.runs.kept_images import keep_images, picked_units
from jobs.runs.run import IdentifiedUnit, Row
from jobs.runs.trace_run import TraceRun, open_run
from schemas.trial import Trial
from schemas.unit import Unit

if TYPE_CHECKING:
    from engine.tracing.kept import ImageSelector
from jobs.pool.worker import Worker

logger = logging.getLogger(__name__)


class TraceWorker(Worker[Unit]):
    """A worker that traces units with the run's model and scorer."""

    def __init__(
        self, location: str, *, rows: int | None, threads: int, offload: bool | None = None
    ) -> None:
        """Open the run's scorer and model; ModelUnavailable if one of them cannot be opened.

        `rows` bounds the rows of a batch; with None the fastest batch size of the device is
        measured. `offload` is that of `open_model`.
        """
        run = open_run(location)
        super().__init__(run, ModelTracer(run, rows=rows, threads=threads, offload=offload))


class ModelTracer:
    """Scores units by tracing them on this process's device."""

    def __init__(
        self, run: TraceRun, *, rows: int | None, threads: int, offload: bool | None
    ) -> None:
        import torch

        from engine.model.calibration import BatchRows, calibrate
        from engine.model.device import is_cpu
        from engine.model.opening import open_model
        from engine.model.scorer import open_scorer

        if is_cpu():
            torch.set_num_threads(threads)
        self._run = run
        self._plan = run.plan
        self._picked = frozenset(picked_units(run))
        self._scorer = open_scorer(self._plan.scorer)
        self._model = open_model(self._plan.model, dtype=self._plan.numerics.dtype, offload=offload)
        measured = rows or calibrate(self._model, self._plan.numerics).rows
        self._rows = BatchRows(measured, least=2)
        self._metrics = WorkerMetrics(run.name)

    def score_rows(self, row: IdentifiedUnit[Unit]) -> list[Row]:
        """Return the score rows of a unit; its images are kept if the rule picks it."""
        unit = row.unit
        shared = {
            "unit_id": row.unit_id,
            "caption_id": unit.caption.id,
            "seed": unit.seed,
            "draw": unit.draw,
            "noise_sigmas": unit.noise_sigmas,
            "part": unit.part.value,
        }
        trials, selector = self._trials(unit, keeps_images=row.unit_id in self._picked)
        if selector:
            self._keep(row, selector)
        if self._model.device.type == "cuda":
            self._metrics.memory(*_gpu_memory())
        return [{**shared, **trial.as_row()} for trial in trials]

    def _keep(self, row: IdentifiedUnit[Unit], selector: "ImageSelector") -> None:
        """Write a unit's images; an error is logged, and the unit's scores are kept in any case."""
        try:
            keep_images(self._run, row.unit_id, row.unit, selector)
        except Exception:
            logger.exception("the images of unit %s are not kept", row.unit_id)

    def _trials(
        self, unit: Unit, *, keeps_images: bool
    ) -> "tuple[list[Trial], ImageSelector | None]":
        """Return a unit's trials, and the selector of its images if these are kept."""
        from engine.model.hooks import count_rows
        from engine.tracing.kept import ImageSelector
        from engine.tracing.screening import screen_unit
        from engine.tracing.trace_unit import trace_unit

        if screen := self._plan.screen:
            with count_rows(self._model.denoiser, self._metrics.rows):
                return screen_unit(
                    self._model,
                    self._scorer,
                    unit,
                    numerics=self._plan.numerics.at(unit.noise_sigmas),
                    estimate=screen,
                    measures=self._plan.measures,
                ), None

        def traced(rows: int) -> "tuple[list[Trial], ImageSelector | None]":
            measures, interventions = self._plan.measures, unit.interventions
            selector = ImageSelector.of(measures, interventions) if keeps_images else None
            with count_rows(self._model.denoiser, self._metrics.rows):
                trials = trace_unit(
                    self._model,
                    self._scorer,
                    unit,
                    numerics=self._plan.numerics.at(unit.noise_sigmas),
                    rows=rows,
                    measures=measures,
                    selector=selector,
                )
            return trials, selector

        return self._rows.fit(traced)


def _gpu_memory() -> tuple[str, int]:
    """Return the name of this process's GPU and the peak of the bytes that it has held there."""
    import torch

    return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()
