"""Effects of cells, exact and screened, of the same captions.

Shapes: K cells (component x step), N captions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from engine.model.guidance import is_guided
from engine.model.hooks import count_rows
from engine.model.model import Diffusion
from engine.model.scorer import Scorer
from engine.statistics.inference import Array
from engine.tracing.screening import screen_unit
from engine.tracing.trace_unit import trace_unit
from schemas.caption import Caption
from schemas.numerics import Numerics
from schemas.screen import Screen
from schemas.trial import Trial
from schemas.unit import Unit

EXACT = "exact"
ESTIMATES = (EXACT, *Screen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """Indirect effects of the same cells and captions by every way to them."""

    effects_KN: Mapping[str, Array]
    row_evaluations: Mapping[str, float]
    """The mean over captions, in guided rows; a backward pass counts two."""


def measured(
    model: Diffusion,
    scorer: Scorer,
    unit: Unit,
    captions: Sequence[Caption],
    *,
    numerics: Numerics,
    measure: str,
    rows: int,
) -> Effects:
    """Return the effects of a unit's cells on each caption, and the work that they took."""
    columns: dict[str, list[list[float]]] = {name: [] for name in ESTIMATES}
    work = dict.fromkeys(columns, 0.0)
    for caption in captions:
        of_caption = replace(unit, caption=caption)
        for name in ESTIMATES:
            trials, evaluations = _counted(
                model, scorer, of_caption, numerics, name, measure=measure, rows=rows
            )
            columns[name].append([trial.patched - trial.corrupted for trial in trials])
            work[name] += evaluations / len(captions)
    effects = {name: np.array(values).T for name, values in columns.items()}
    return Effects(effects_KN=effects, row_evaluations=work)


def _counted(
    model: Diffusion,
    scorer: Scorer,
    unit: Unit,
    numerics: Numerics,
    name: str,
    *,
    measure: str,
    rows: int,
) -> tuple[list[Trial], float]:
    """Return a unit's trials, in an order that all ways share, and their row evaluations."""
    counted: list[float] = []

    def count(number: int) -> None:  # with a graph: a backward pass will follow
        counted.append(number * (3 if torch.is_grad_enabled() else 1))

    with count_rows(model.denoiser, count):
        if name == EXACT:
            trials = trace_unit(
                model, scorer, unit, numerics=numerics, rows=rows, measures=[measure]
            )
        else:
            trials = screen_unit(
                model, scorer, unit, numerics=numerics, estimate=Screen(name), measures=[measure]
            )
    trials.sort(key=lambda trial: (trial.component, trial.token, trial.step_start))
    halves = 2 if is_guided(model, numerics) else 1
    return trials, sum(counted) / halves
