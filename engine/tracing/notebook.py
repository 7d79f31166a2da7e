"""Tracing one caption in a notebook or script, without Ray."""

from collections.abc import Sequence

import pyarrow as pa

from engine.model.components import list_components
from engine.model.model import Diffusion
from engine.model.opening import new_scheduler
from engine.model.schedulers import evaluated
from engine.model.scorer import Scorer
from engine.tracing.trace_unit import trace_unit
from schemas.caption import Caption
from schemas.component import PAPER_KINDS, Kind, Part
from schemas.intervention import Intervention, TokenRole
from schemas.numerics import Numerics
from schemas.unit import Unit
from schemas.window import expand_windows


def trace_caption(
    model: Diffusion,
    scorer: Scorer,
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
    `patched` hold the measure of the three runs. The arguments are fields of a plan.
    PlanError, UnknownComponent: as `trace_unit`.
    """
    scheduler = new_scheduler(model, numerics)
    steps = len(evaluated(scheduler))
    components = [c for c in list_components(model, kinds) if c.part is part]
    unit = Unit(
        caption=caption,
        seed=seed,
        draw=0,
        part=part,
        components=tuple(c.name for c in components),
        windows=expand_windows(windows, steps) if part is Part.DENOISER else ((0, steps),),
        tokens=tuple(tokens),
        interventions=tuple(interventions),
        references=tuple(references),
    )
    trials = trace_unit(model, scorer, unit, numerics=numerics, rows=rows, measures=measures)
    return pa.Table.from_pylist([trial.as_row() for trial in trials])
