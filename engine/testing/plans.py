"""Random plans, by which a family's traces are compared with runs made the long way."""

from dataclasses import dataclass
from random import Random

import torch

from engine.model.components import list_sites
from engine.model.hooks import Side
from engine.model.model import Diffusion
from engine.model.opening import new_scheduler
from engine.model.schedulers import evaluated
from engine.model.seeds import derived_seed
from engine.testing.oracle import Oracle
from engine.tracing.trace_unit import trace_images
from schemas.caption import Caption
from schemas.component import Part
from schemas.intervention import Intervention, PatchKind, allows
from schemas.numerics import Numerics
from schemas.unit import Unit
from schemas.window import Window

COMPONENTS = {Part.DENOISER: 2, Part.TEXT_ENCODER: 1}
"""Components of a random plan, besides one that reads the text."""
ROWS = 4
"""Rows of a batch, so that a plan's patched runs are of several batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomPlan:
    """A unit to trace, and the settings to trace it with."""

    unit: Unit
    numerics: Numerics


def random_plan(
    model: Diffusion, caption: Caption, numerics: Numerics, *, part: Part, seed: int = 0
) -> RandomPlan:
    """Return a plan of which components, window, interventions and path are drawn.

    One component of the denoiser's reads the text, whose swap is traced too. Blocks of a UNet,
    which return several tensors, are never drawn: the oracle patches one.
    """
    random = Random(derived_seed("random plan", part, seed))
    found = [
        site.component
        for site in list_sites(model)
        if site.component.part is part and site.spot.side is not Side.OUTPUTS
    ]
    swap, restore = Intervention.SWAP, Intervention.RESTORE
    readers = [c.name for c in found if allows(swap, PatchKind.STATE, c, caption)]
    reader = random.sample(readers, min(1, len(readers)))
    others = [c.name for c in found if c.name not in reader]
    count = min(COMPONENTS[part], len(others))
    steps = len(evaluated(new_scheduler(model, numerics)))
    second = random.choice([Intervention.CORRUPT, Intervention.ZERO])
    unit = Unit(
        caption=caption,
        seed=random.randrange(1000),
        draw=random.randrange(1000),
        part=part,
        components=(*reader, *random.sample(others, count)),
        windows=((0, steps) if part is Part.TEXT_ENCODER else _window(random, steps),),
        interventions=(restore, second, swap) if reader else (restore, second),
    )
    path = random.choice(["tokens", "pooled", "both"]) if model.family.has_pooled else "both"
    return RandomPlan(unit=unit, numerics=numerics.model_copy(update={"path": path}))


def _window(random: Random, steps: int) -> Window:
    start, stop = sorted(random.sample(range(steps + 1), 2))
    return start, stop


def oracle_differences(model: Diffusion, plan: RandomPlan) -> dict[str, float]:
    """Return the largest difference of every image of a plan, by the run, from the oracle's."""
    unit = plan.unit
    oracle = Oracle(model, unit, plan.numerics)
    references, images = trace_images(model, unit, numerics=plan.numerics, rows=ROWS)
    expected = {"clean": oracle.clean(), "corrupted": oracle.corrupted()}
    got = dict(zip(expected, references, strict=True))
    for patch, image_CHW in images.items():
        label = f"{patch.intervention} {patch.component} {patch.window}"
        expected[label] = oracle.patched(patch.component, patch.intervention, patch.window)
        got[label] = image_CHW
    return {label: _largest(got[label] - oracle.image(run)) for label, run in expected.items()}


def _largest(difference: torch.Tensor) -> float:
    return float(difference.abs().max())
