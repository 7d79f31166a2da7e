"""A run of sets, without any model: each set has the effect that it is given."""

from collections.abc import Callable, Iterator
from pathlib import Path

from jobs.runs.run import IdentifiedUnit
from jobs.runs.trace_run import TraceRun, create_run
from schemas.component import Component, Kind, Part
from schemas.component_set import ComponentSet, Curve, PlannedSet, SetMember
from schemas.intervention import Intervention, TokenRole
from schemas.plan import TracePlan
from tests.made_up.runs import MANIFEST, cats, commit_all, score_row

INTERVENTIONS = (Intervention.RESTORE, Intervention.CORRUPT)
STEPS, CLEAN, CORRUPTED = 50, 0.8, 0.4


def component(number: int, part: Part = Part.DENOISER) -> Component:
    """Return a made-up attention."""
    prefix = "unet.up" if part is Part.DENOISER else "text_encoder.layers"
    kind = Kind.CROSS_ATTENTION if part is Part.DENOISER else Kind.SELF_ATTENTION
    return Component(
        name=f"{prefix}.{number}.{kind.value}", part=part, kind=kind, order=number, layer=0,
        num_parameters=1,
    )  # fmt: skip


def set_of(
    name: str, size: int, *, curve: Curve | None = None, attribute: str | None = None,
    first: int = 0, part: Part = Part.DENOISER,
) -> ComponentSet:  # fmt: skip
    """Return a set of the components `first` .. first + size - 1."""
    token = None if part is Part.DENOISER else TokenRole.LAST_SUBJECT
    members = tuple(
        SetMember(component=component(n, part), window=(0, STEPS), token=token)
        for n in range(first, first + size)
    )
    return ComponentSet(name=name, members=members, curve=curve, attribute=attribute)


def make_set_run(
    path: Path,
    sets: tuple[ComponentSet, ...],
    share_of: Callable[[ComponentSet, Intervention, int], float],
    *,
    captions: int = 12,
    attributes: tuple[str, ...] = ("object",),
) -> TraceRun:
    """Return a finished run; `share_of` a set, intervention and caption's number is the share of
    the total effect."""
    plan = TracePlan(
        scorer="builtin:emoji-sd",
        captions=cats(captions, attributes),
        parts=(Part.DENOISER,),
        components=(),
        measures=("target",),
        interventions=INTERVENTIONS,
        sets=tuple(
            PlannedSet(
                name=each.name, components=tuple(m.text for m in each.members),
                attribute=each.attribute, curve=each.curve,
            )
            for each in sets
        ),
    )  # fmt: skip
    run = create_run(path, plan, MANIFEST, (), steps=STEPS, sets=sets)
    number = {caption.id: n % captions for n, caption in enumerate(plan.captions)}

    def scores(row: IdentifiedUnit) -> Iterator[dict]:
        for each in row.unit.sets:
            for intervention in INTERVENTIONS:
                effect = (CLEAN - CORRUPTED) * share_of(
                    each, intervention, number[row.unit.caption.id]
                )
                is_restored = intervention is Intervention.RESTORE
                yield score_row(
                    row, each.name, intervention=intervention.value, token=each.token,
                    position=None, token_text=None, measure="target", clean=CLEAN,
                    corrupted=CORRUPTED,
                    patched=CORRUPTED + effect if is_restored else CLEAN - effect,
                )  # fmt: skip

    commit_all(run, scores)
    return run
