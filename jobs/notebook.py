"""Tracing a few captions in this process, without Ray, and showing the findings in a notebook."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
from pydantic import Field

from engine.files import temporary_folder
from jobs.query.results import effects
from jobs.report.plot import Drawing, Picture, draw_figure
from jobs.runs.progress import Progress, open_tasks, progress_of
from jobs.runs.trace_run import TraceRun
from jobs.tracing.plan import check_plan, make_plan
from jobs.tracing.trace import prepare_run
from jobs.tracing.tracer import TraceWorker
from schemas.caption import Caption
from schemas.component import PAPER_KINDS, TEXT_ENTRIES, Kind, Part
from schemas.documents import parsed
from schemas.errors import PlanError, TooManyFailures
from schemas.intervention import Intervention, TokenRole
from schemas.numerics import Numerics
from schemas.printable import shown
from schemas.unit import plan_units

if TYPE_CHECKING:
    from engine.model.model import Diffusion
    from engine.model.scorer import Scorer

Rows: Any = Annotated[int, Field(strict=True, ge=2)]
"""The rows of a batch, which hold the clean and the corrupted run."""
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
        known = [field.name for field in fields_of(Drawing)]
        for name in choice:
            if name not in known:
                raise PlanError(f"a figure has no choice {name!r}: there are {', '.join(known)}")
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

    if rows is not None:
        parsed(Rows, rows, "rows", error=PlanError)
    given = [captions] if isinstance(captions, Caption) else captions
    numerics = fields.get("numerics")
    if isinstance(numerics, Numerics):
        fields["numerics"] = numerics.model_dump(exclude_unset=True)
    planned = check_plan(make_plan({"captions": given, **fields}))
    folder = temporary_folder("trace") if run is None else None
    location = "" if run is None else run
    opened = prepare_run(Path(folder.name, "trace") if folder else location, planned)
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


def trace_caption(
    model: "Diffusion",
    scorer: "Scorer",
    caption: Caption,
    *,
    part: Part = Part.DENOISER,
    numerics: Numerics,
    seed: int = 0,
    kinds: Sequence[Kind] = PAPER_KINDS,
    windows: Sequence[str] = ("all",),
    tokens: Sequence[TokenRole] = (TokenRole.LAST_SUBJECT,),
    interventions: Sequence[Intervention] = (Intervention.RESTORE,),
    references: Sequence[str] = (),
    measures: Sequence[str] = ("caption", "target"),
    rows: int = 24,
) -> pa.Table:
    """Return the trials of one caption: one row for each patched run and measure.

    The columns are those of a run's table `scores` from `component` on: `clean`, `corrupted` and
    `patched` hold the measure of the three runs. The arguments are fields of a plan, and checked as
    `trace` checks them. PlanError: one is wrong. ModelUnavailable: the model is no longer where it
    was opened from.
    """
    from engine.tracing.trace_unit import trace_unit

    _check_opened(model, scorer, numerics)
    parsed(Rows, rows, "rows", error=PlanError)
    planned = check_plan(
        make_plan(
            {
                "model": model.name,
                "scorer": scorer.spec,
                "captions": [caption],
                "parts": [part],
                "numerics": numerics.model_dump(),
                "seeds": [seed],
                "kinds": kinds,
                "windows": windows,
                "tokens": tokens,
                "interventions": interventions,
                "measures": measures,
                **({"references": references} if references else {}),
            }
        )
    )
    plan, names = planned.plan, [c.name for c in planned.components if c.name != TEXT_ENTRIES]
    traced = {part: names for part in plan.parts}
    whole = plan.model_copy(
        update={"slab_components": len(names), "slab_windows": planned.steps**2}
    )
    units = plan_units(whole, names=traced, steps=planned.steps)
    if len(units) > 1:
        raise PlanError("noise_sigmas has several values: give one, or trace them by dqf.trace")
    trials = trace_unit(
        model, scorer, units[0], numerics=plan.numerics, rows=rows, measures=plan.measures
    )
    return pa.Table.from_pylist([trial.as_row() for trial in trials])


def _check_opened(model: object, scorer: object, numerics: object) -> None:
    """Raise PlanError if a model or scorer is not opened, or the settings are another type's."""
    import torch

    from engine.model.model import Diffusion
    from engine.model.scorer import Scorer

    for given, kind, made_by in (
        (model, Diffusion, "an opened model: dqf.open_model(...)"),
        (scorer, Scorer, "an opened scorer: dqf.open_scorer(...)"),
        (numerics, Numerics, "the settings: dqf.Numerics(...)"),
    ):
        if not isinstance(given, kind):
            raise PlanError(f"give {made_by}, not {shown(given)}")
    assert isinstance(model, Diffusion)
    assert isinstance(numerics, Numerics)
    if getattr(torch, numerics.dtype) != model.dtype:
        raise PlanError(
            f"numerics have dtype {numerics.dtype}, and model {model.name!r} is opened in "
            f"{str(model.dtype).removeprefix('torch.')}: open it with the same dtype"
        )
