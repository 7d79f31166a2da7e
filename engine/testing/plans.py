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
from schemas.component import Component, Part
from schemas.component_set import ComponentSet, SetMember
from schemas.intervention import READ_TEXTS, Intervention, PatchKind, TokenRole, allows
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
    """Return a plan of which components, sets, window, interventions and path are drawn.

    One component of the denoiser's reads the text, which is swapped and emptied too, and a block is
    skipped where the denoiser has any. A set is of the components and, for the denoiser, of one of
    a text encoder. Blocks of a UNet, which return several tensors, are never drawn: the oracle
    patches one.
    """
    random = Random(derived_seed("random plan", part, seed))
    live = [
        site.component
        for site in list_sites(model)
        if site.spot.side is not Side.OUTPUTS and not site.component.is_dead
    ]
    found = [component for component in live if component.part is part]
    chosen: list[Component] = []
    for special in (Intervention.SWAP, Intervention.SKIP):
        fit = [c for c in found if allows(special, PatchKind.STATE, c, caption)]
        chosen += random.sample(fit, min(1, len(fit)))
    others = [component for component in found if component not in chosen]
    chosen += random.sample(others, min(COMPONENTS[part], len(others)))
    text = random.choice([component for component in live if component.part is Part.TEXT_ENCODER])
    steps = len(evaluated(new_scheduler(model, numerics)))
    window = (0, steps) if part is Part.TEXT_ENCODER else _window(random, steps)
    second = random.choice([Intervention.CORRUPT, Intervention.ZERO])
    texts = READ_TEXTS if model.family.reads_padding else (Intervention.SWAP,)
    special = (*texts, Intervention.SKIP)
    together = dict.fromkeys([*chosen, text])
    members = [_member(random, component, steps) for component in together]
    unit = Unit(
        caption=caption,
        seed=random.randrange(1000),
        draw=random.randrange(1000),
        part=part,
        components=tuple(component.name for component in chosen),
        windows=(window,),
        sets=(ComponentSet(name="together", members=tuple(members)),),
        interventions=(Intervention.RESTORE, second, *special),
    )
    path = random.choice(["tokens", "pooled", "both"]) if model.family.has_pooled else "both"
    return RandomPlan(unit=unit, numerics=numerics.model_copy(update={"path": path}))


def _member(random: Random, component: Component, steps: int) -> SetMember:
    if component.part is Part.TEXT_ENCODER:
        role = random.choice([TokenRole.LAST_SUBJECT, TokenRole.SUBJECT, TokenRole.EOS])
        return SetMember(component=component, window=(0, steps), token=role)
    return SetMember(component=component, window=_window(random, steps))


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
        if patch.members:
            expected[label] = oracle.set_patched(unit.sets[0], patch.intervention)
        else:
            expected[label] = oracle.patched(patch.component, patch.intervention, patch.window)
        got[label] = image_CHW
    return {label: _largest(got[label] - oracle.image(run)) for label, run in expected.items()}


def _largest(difference: torch.Tensor) -> float:
    return float(difference.abs().max())
