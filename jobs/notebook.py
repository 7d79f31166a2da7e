"""Tracing a few captions in this process, without Ray, and showing the findings in a notebook."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from engine.files import temporary_folder
from jobs.query.results import effects
from jobs.report.plot import Drawing, Picture, draw_figure
from jobs.runs.progress import Progress, open_tasks, progress_of
from jobs.runs.trace_run import TraceRun
from jobs.tracing.plan import check_plan, make_plan
from jobs.tracing.trace import prepare_run
from jobs.tracing.tracer import TraceWorker
from schemas.caption import Caption
from schemas.errors import PlanError, TooManyFailures
from schemas.numerics import Numerics

SHOWN = ("words", "timesteps", "ranking")
"""Figures that a trace is shown by, the first two where its plan has several tokens or windows."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A finished trace of a few captions; a notebook shows its figures."""

    run: TraceRun
    """The run, which every function of dqf reads."""
    folder: TemporaryDirectory[str] | None
    """The folder that ends with this object; None if the caller named one."""

    @cached_property
    def effects(self) -> pa.Table:
        """One row per patched run and measure, with the three scores and the effects."""
        return effects(self.run)

    def plot(self, figure: str = "ranking", **choice: Any) -> Picture:
        """Return a figure of `dqf plot` by name; `choice` holds fields of `Drawing`.

        PlanError: there is no such figure or choice, or the plan did not trace what it needs.
        """
        return draw_figure(self.run, figure, Drawing(**choice))

    def _repr_html_(self) -> str:
        texts = ", ".join(caption.caption for caption in self.run.plan.captions)
        pictures = [picture.as_html for picture in self._pictures()]
        return f"<p>{html.escape(texts)}</p>" + "".join(pictures)

    def _pictures(self) -> Sequence[Picture]:
        """Return the figures that the plan traced enough for."""
        found = list[Picture]()
        for figure in SHOWN:
            try:
                found.append(self.plot(figure))
            except PlanError:
                continue
        return found


def trace(
    captions: Caption | Sequence[Caption],
    *,
    run: str | Path | None = None,
    rows: int | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    **fields: Any,
) -> Trace:
    """Trace captions in this process and return the finished trace.

    `fields` are those of a plan file: `model`, `parts`, `tokens`, `windows`, `seeds`, `numerics` as
    a mapping or Numerics, and others. `run` is the folder that keeps the scores and from which an
    interrupted trace continues; without one they end with the returned object. `rows` bounds the
    rows of a batch. PlanError: the plan is wrong. ModelUnavailable: the model cannot be opened.
    StoreError: the folder has another run. TooManyFailures: a unit failed.
    """
    import torch

    given = [captions] if isinstance(captions, Caption) else list(captions)
    numerics = fields.get("numerics")
    if isinstance(numerics, Numerics):
        fields["numerics"] = numerics.model_dump(exclude_unset=True)
    planned = check_plan(make_plan({"captions": given, **fields}))
    folder = temporary_folder("trace") if run is None else None
    opened = prepare_run(Path(folder.name, "trace") if folder else str(run), planned)
    opened.complete()
    on_progress(progress_of(opened))
    if tasks := open_tasks(opened):
        worker = TraceWorker(opened.location, rows=rows, threads=torch.get_num_threads())
        for task in tasks:
            worker.run(task)
            on_progress(progress_of(opened))
    if failures := opened.failures():
        raise TooManyFailures(
            f"{len(failures)} of {len(opened.units)} units failed, the first by "
            f"{failures[0].error}: {failures[0].message}"
        )
    return Trace(run=opened, folder=folder)
