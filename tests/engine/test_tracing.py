"""The lockstep tracer against a naive one, and what must not change a score."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.components import list_components
from engine.hooks import patched
from engine.models import Diffusion, open_model
from engine.registry import EMOJI_SD
from engine.scoring import Scorer, open_scorer
from engine.tracing import run_rows, trace_unit
from schemas.component import Part
from schemas.errors import UnknownComponent
from schemas.plan import Caption, Numerics, Unit
from tests.engine.naive import naive_images
from tests.engine.states import state_of

CAPTIONS = [
    Caption(caption="a red apple on a wooden table", subject="red apple", attribute="object"),
    Caption(caption="a photo of a hippopotamus by the sea", subject="hippopotamus", attribute="o"),
    Caption(caption="a painting of a castle", subject="painting", attribute="style"),
]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def model(tiny_sd: Path) -> Diffusion:
    return open_model(str(tiny_sd), device="cpu")


@pytest.fixture(scope="module")
def scorer(tiny_scorer: Path) -> Scorer:
    return open_scorer(str(tiny_scorer))


def names(model: Diffusion, part: Part) -> tuple[str, ...]:
    return tuple(c.name for c in list_components(model) if c.part is part)


def make_unit(part: Part, components: tuple[str, ...], caption: Caption = CAPTIONS[0]) -> Unit:
    return Unit(caption=caption, seed=3, draw=0, part=part, components=components)


@pytest.mark.parametrize("part", list(Part))
@pytest.mark.parametrize(
    "options", [{}, {"cfg_patch": "both"}, {"noise_at": "output"}], ids=["cond", "both", "output"]
)
def test_every_score_equals_the_naive_tracers(
    model: Diffusion, scorer: Scorer, part: Part, options: dict[str, str]
) -> None:
    if part is Part.TEXT_ENCODER and options:
        pytest.skip("an option of the UNet trace")
    numerics = Numerics.model_validate({"steps": 3, **options})
    rng = random.Random(f"{part}{options}")
    for caption in CAPTIONS:
        chosen = names(model, part)
        chosen = tuple(rng.sample(chosen, min(4, len(chosen))))
        unit = make_unit(part, chosen, caption)
        trials = trace_unit(model, scorer, unit, numerics=numerics, rows=3)
        texts = [caption.caption, caption.target_text]
        for n, component in enumerate(chosen):
            images = torch.cat(naive_images(model, unit, component, numerics))
            expected = scorer.score(images, texts)
            pair = trials[2 * n : 2 * n + 2]
            got = torch.tensor([[t.clean, t.corrupted, t.restored] for t in pair]).double().T
            difference = float((got - expected).abs().max())
            assert difference < TOLERANCE, component
            assert float((images[0] - images[1]).abs().mean()) > 1e-4


@pytest.mark.skipif(not (EMOJI_SD / "model_index.json").exists(), reason="no weights yet")
@pytest.mark.parametrize("part", list(Part))
def test_scores_on_the_shipped_model_equal_the_naive_tracers(part: Part) -> None:
    model = open_model("emoji-sd", device="cpu")
    scorer = open_scorer("builtin:emoji-sd")
    caption = Caption(caption="a photo of a red cat", subject="cat", attribute="object")
    numerics = Numerics(steps=4, guidance=3.0)
    chosen = tuple(random.Random(0).sample(names(model, part), 6))
    unit = make_unit(part, chosen, caption)
    trials = trace_unit(model, scorer, unit, numerics=numerics, rows=8)
    for n, component in enumerate(chosen):
        images = torch.cat(naive_images(model, unit, component, numerics))
        expected = scorer.score(images, [caption.caption, caption.target_text])
        pair = trials[2 * n : 2 * n + 2]
        got = torch.tensor([[t.clean, t.corrupted, t.restored] for t in pair]).double().T
        assert float((got - expected).abs().max()) < TOLERANCE, component


def test_the_seed_and_the_draw_determine_the_scores(model: Diffusion, scorer: Scorer) -> None:
    unit = make_unit(Part.TEXT_ENCODER, names(model, Part.TEXT_ENCODER)[:1])
    numerics = Numerics(steps=2)
    first = trace_unit(model, scorer, unit, numerics=numerics, rows=4)
    assert trace_unit(model, scorer, unit, numerics=numerics, rows=4) == first
    other = trace_unit(model, scorer, replace(unit, draw=1), numerics=numerics, rows=4)
    assert other[0].clean == pytest.approx(first[0].clean, abs=1e-6)
    assert abs(other[0].corrupted - first[0].corrupted) > 1e-5


def test_tracing_leaves_the_model_as_found_also_after_an_exception(
    model: Diffusion, scorer: Scorer
) -> None:
    before = state_of(model)
    unit = make_unit(Part.UNET, names(model, Part.UNET)[:2])
    trace_unit(model, scorer, unit, numerics=Numerics(steps=1), rows=4)
    assert state_of(model) == before

    def fail(_out: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError

    with pytest.raises(ArithmeticError), patched({model.unet.conv_in: fail}):
        trace_unit(model, scorer, unit, numerics=Numerics(steps=1), rows=4)
    assert state_of(model) == before


@pytest.mark.parametrize("part", list(Part))
def test_rows_and_slabs_change_no_score(model: Diffusion, scorer: Scorer, part: Part) -> None:
    numerics = Numerics(steps=2)
    all_names = names(model, part)
    whole = trace_unit(model, scorer, make_unit(part, all_names), numerics=numerics, rows=32)
    split = [
        trial
        for name in all_names
        for trial in trace_unit(model, scorer, make_unit(part, (name,)), numerics=numerics, rows=2)
    ]
    for left, right in zip(whole, split, strict=True):
        assert (left.component, left.against) == (right.component, right.against)
        assert left.clean == pytest.approx(right.clean, abs=TOLERANCE)
        assert left.corrupted == pytest.approx(right.corrupted, abs=TOLERANCE)
        assert left.restored == pytest.approx(right.restored, abs=TOLERANCE)


def test_restoring_all_is_clean_and_none_is_corrupted(model: Diffusion) -> None:
    unit = make_unit(Part.UNET, names(model, Part.UNET))
    images = run_rows(model, unit, [(), (), unit.components], numerics=Numerics(steps=2), rows=4)
    assert torch.allclose(images[1], images[2], atol=1e-5)
    assert torch.allclose(images[0], images[3], atol=1e-4)
    assert not torch.allclose(images[0], images[1], atol=1e-3)


def test_unknown_component_names_the_nearest_and_leaves_no_hook(
    model: Diffusion, scorer: Scorer
) -> None:
    unit = make_unit(Part.UNET, ("unet.mid_block.resnet.0",))
    with pytest.raises(UnknownComponent, match=r"unet\.mid_block\.resnets\.0"):
        trace_unit(model, scorer, unit, numerics=Numerics(steps=1), rows=2)
    for network in (model.unet, model.text_encoder):
        assert not any(module._forward_hooks for module in network.modules())
