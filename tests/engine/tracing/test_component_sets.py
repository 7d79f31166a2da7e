"""Sets of components that are patched together, against single patches, donors and the oracle."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.model.model import Diffusion
from engine.model.opening import open_model
from engine.testing.oracle import Oracle
from engine.tracing.component_sets import find_sets
from engine.tracing.interventions import CLEAN, CORRUPTED
from engine.tracing.trace_unit import trace_images
from schemas.caption import Caption
from schemas.component import Part
from schemas.component_set import ComponentSet, PlannedSet
from schemas.errors import DqfError, PlanError, UnknownComponent
from schemas.intervention import Intervention, PatchKind
from schemas.numerics import Numerics
from schemas.unit import Unit
from tests.rounding import assert_near

CAPTION = Caption(caption="a red apple on a wooden table", subject="red apple", attribute="object")
NUMERICS = Numerics(steps=3)
RESTORE, CORRUPT = Intervention.RESTORE, Intervention.CORRUPT
RESNET, MIDDLE = "unet.down_blocks.1.resnets.0", "unet.mid_block.resnets.0"
ATTN2 = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2"
TEXT, LAYER = "text_encoder.layers.0.self_attn", "text_encoder.layers.1"
MOVED = 1e-3


@pytest.fixture(scope="module")
def model(tiny_sd: Path) -> Diffusion:
    return open_model(str(tiny_sd), device="cpu")


def found(model: Diffusion, *components: str) -> ComponentSet:
    (together,) = find_sets(model, [PlannedSet(name="s", components=components)], steps=3)
    return together


def unit_of(components: Sequence[str] = (), sets: Sequence[ComponentSet] = (), **more: Any) -> Unit:
    is_text = bool(components) and components[0].startswith("text_encoder")
    part = Part.TEXT_ENCODER if is_text else Part.DENOISER
    defaults = {
        "part": sets[0].part if sets else part,
        "windows": ((0, 3),),
        "interventions": (RESTORE, CORRUPT),
    }
    return Unit(
        caption=CAPTION, seed=3, draw=0, components=tuple(components), sets=tuple(sets),
        **(defaults | more),
    )  # fmt: skip


def images(model: Diffusion, unit: Unit, rows: int = 8) -> dict[Intervention, torch.Tensor]:
    """Return the image of each patched run of a unit with one component or set."""
    _, made = trace_images(model, unit, numerics=NUMERICS, rows=rows)
    return {patch.intervention: image for patch, image in made.items()}


@pytest.mark.parametrize("name", [RESNET, ATTN2, TEXT])
def test_a_set_of_one_component_is_that_component(model: Diffusion, name: str) -> None:
    alone, together = (
        images(model, unit) for unit in (unit_of([name]), unit_of(sets=[found(model, name)]))
    )
    assert alone.keys() == together.keys() == {RESTORE, CORRUPT}
    assert all(torch.equal(alone[i], together[i]) for i in alone)


def test_a_set_by_contribution_copies_what_its_components_add(model: Diffusion) -> None:
    by_contribution: dict[str, Any] = {"patches": (PatchKind.CONTRIBUTION,)}
    alone = images(model, unit_of([RESNET], **by_contribution))
    together = images(model, unit_of(sets=[found(model, RESNET)], **by_contribution))
    assert all(torch.equal(alone[i], together[i]) for i in (RESTORE, CORRUPT))
    # An attention adds its whole output, so that sets of attentions alone have no other patch.
    assert images(model, unit_of(sets=[found(model, ATTN2)], **by_contribution)) == {}
    assert images(model, unit_of(sets=[found(model, ATTN2, RESNET)], **by_contribution))


def test_windows_that_meet_are_the_window_of_both(model: Diffusion) -> None:
    parts = found(model, f"{RESNET}@0:1", f"{RESNET}@1:3", f"{MIDDLE}@2:3")
    whole = found(model, f"{RESNET}@0:3", f"{MIDDLE}@2:3")
    assert parts.window == whole.window == (0, 3)
    left, right = (images(model, unit_of(sets=[s])) for s in (parts, whole))
    for intervention in (RESTORE, CORRUPT):
        assert_near(left[intervention], right[intervention], intervention)


def test_the_whole_text_restored_or_corrupted_is_the_other_run(model: Diffusion) -> None:
    """The last text layer at every token holds all that the caption says, whatever else a set
    patches; the text alone is not a text trace's business only."""
    mixed = found(model, f"{LAYER}@all", f"{ATTN2}@1:2", MIDDLE)
    assert (mixed.part, mixed.window, mixed.token) == (Part.DENOISER, (0, 3), "all")
    references, made = trace_images(model, unit_of(sets=[mixed]), numerics=NUMERICS, rows=4)
    by_intervention = {patch.intervention: image for patch, image in made.items()}
    assert float((references[CLEAN] - references[CORRUPTED]).abs().mean()) > MOVED
    assert_near(by_intervention[RESTORE], references[CLEAN])
    assert_near(by_intervention[CORRUPT], references[CORRUPTED])


@pytest.mark.parametrize("name", ["tiny_sd", "tiny_sd3"])
def test_all_text_entries_are_the_donor(name: str, request: pytest.FixtureRequest) -> None:
    opened = open_model(str(request.getfixturevalue(name)), device="cpu")
    together = found(opened, "text_entries")
    assert len(together.members) > 1
    unit = unit_of(sets=[together])
    references, made = trace_images(opened, unit, numerics=NUMERICS, rows=4)
    donor = {RESTORE: references[CLEAN], CORRUPT: references[CORRUPTED]}
    assert float((references[CLEAN] - references[CORRUPTED]).abs().mean()) > 1e-4
    for patch, image in made.items():
        assert_near(image, donor[patch.intervention], patch.intervention)


@pytest.mark.parametrize("rows", [3, 16])
def test_the_oracle_agrees_on_sets_of_both_parts(model: Diffusion, rows: int) -> None:
    """Sets fork at different steps, and one reads a text of its own: any batch gives the oracle's
    images."""
    sets = [
        found(model, f"{RESNET}@1:3", f"{ATTN2}@0:2", f"{TEXT}@subject"),
        found(model, f"{MIDDLE}@2:3", f"{ATTN2}@1:2"),
    ]
    sets = [ComponentSet(name=f"set-{n}", members=each.members) for n, each in enumerate(sets)]
    unit = unit_of(sets=sets)
    oracle = Oracle(model, unit, NUMERICS)
    references, made = trace_images(model, unit, numerics=NUMERICS, rows=rows)
    assert len(made) == 4
    for patch, image in made.items():
        together = next(each for each in sets if each.name == patch.component)
        expected = oracle.image(oracle.set_patched(together, patch.intervention))
        assert_near(image, expected, patch.label)
        base = references[patch.base]
        assert float((image - base).abs().max()) > 1e-4, patch.label


@pytest.mark.parametrize(
    ("components", "error", "said"),
    [
        (["unet.mid_block.resnet.0"], UnknownComponent, "unet.mid_block.resnets.0"),
        ([f"{RESNET}@0:2", f"{RESNET}@1:3"], PlanError, "at 0:2 and at 1:3, which overlap"),
        (["text_entries", ATTN2], PlanError, "has .*attn2 at 0:3 and at 0:3"),
        ([f"{TEXT}@all", f"{TEXT}@eos"], PlanError, "overlap"),
        ([f"{TEXT}@0:2"], PlanError, "of a text encoder: after @ it takes last_subject"),
        ([f"{TEXT}@each"], PlanError, "of a text encoder"),
        ([f"{RESNET}@subject"], PlanError, "of the denoiser: after @ it takes steps"),
        ([f"{RESNET}@2:9"], PlanError, "past the last of 3 steps"),
        (
            ["text_encoder.layers.0.self_attn", "text_encoder.layers.0.mlp",
             "text_encoder.layers.1.self_attn", "text_encoder.layers.1.mlp", RESNET],
            PlanError, "every component of the text-encoder",
        ),
    ],
)  # fmt: skip
def test_sets_that_are_refused(
    model: Diffusion, components: list[str], error: type[DqfError], said: str
) -> None:
    with pytest.raises(error, match=said):
        found(model, *components)
