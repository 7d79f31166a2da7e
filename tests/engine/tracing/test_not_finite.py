"""A run that ends in no number fails, and says which network made it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.editing.closed_form import solve_changes, sums_of
from engine.model.model import Diffusion, token_embedding
from engine.model.opening import open_model
from engine.model.sampling import generate
from engine.model.scorer import Scorer, open_scorer
from engine.tracing.trace_unit import trace_unit
from schemas.caption import Caption
from schemas.component import Part
from schemas.errors import NotFinite
from schemas.numerics import Numerics
from schemas.unit import Unit

CAPTION = Caption(caption="a red apple", subject="apple", attribute="object")


@pytest.fixture
def model(tiny_sd: Path) -> Diffusion:
    return open_model(str(tiny_sd), device="cpu")


@pytest.fixture(scope="module")
def scorer(tiny_scorer: Path) -> Scorer:
    return open_scorer(str(tiny_scorer))


def traced(model: Diffusion, scorer: Scorer, part: Part, **numerics: Any) -> object:
    name = {
        Part.DENOISER: "unet.mid_block.resnets.0",
        Part.TEXT_ENCODER: "text_encoder.layers.0.mlp",
    }
    unit = Unit(
        caption=CAPTION, seed=0, draw=0, part=part, components=(name[part],), windows=((0, 2),)
    )
    settings = Numerics(steps=2, guidance=2.0, **numerics)
    return trace_unit(model, scorer, unit, numerics=settings, rows=4)


def largest(weights: torch.Tensor) -> None:
    with torch.no_grad():
        weights.fill_(torch.finfo(weights.dtype).max)


@pytest.mark.parametrize("part", Part)
@pytest.mark.parametrize(
    ("numerics", "match"),
    [
        ({"noise_absolute": 1e38}, "the text encoder gives .* the corrupted run of 'a red apple'"),
        ({"noise_sigmas": 1e39, "noise_at": "output"}, "not finite in float32: the corrupted run"),
    ],
)
def test_noise_beyond_numbers_is_the_corrupted_runs(
    model: Diffusion, scorer: Scorer, part: Part, numerics: dict[str, Any], match: str
) -> None:
    with pytest.raises(NotFinite, match=match):
        traced(model, scorer, part, **numerics)


@pytest.mark.parametrize("part", Part)
def test_a_unet_that_overflows_is_named(model: Diffusion, scorer: Scorer, part: Part) -> None:
    largest(model.denoiser.conv_out.weight)
    with pytest.raises(NotFinite, match=r"the denoiser gives .* the clean run and 1 more"):
        traced(model, scorer, part)


def test_a_changed_run_alone_that_overflows_is_named(model: Diffusion, scorer: Scorer) -> None:
    # What only the patched run reads: the middle's output in the corrupted run is not restored.
    def overflow(_module: object, _args: object, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        if len(output) > 4:  # the two references are guided: two rows each
            output[-1] = torch.inf
        return output

    model.denoiser.mid_block.resnets[1].register_forward_hook(overflow)
    with pytest.raises(NotFinite, match=r"the run of restore at unet\.mid_block\.resnets\.0"):
        traced(model, scorer, Part.DENOISER)


def test_a_vae_that_overflows_is_named(model: Diffusion, scorer: Scorer) -> None:
    largest(model.vae.decoder.conv_out.weight)
    with pytest.raises(NotFinite, match=r"the VAE gives .* in float32"):
        traced(model, scorer, Part.DENOISER)


def test_half_precision_gets_the_advice_that_helps(tiny_sd: Path) -> None:
    model = open_model(str(tiny_sd), dtype="bfloat16", device="cpu")
    largest(model.denoiser.conv_out.weight)
    with pytest.raises(NotFinite, match=r"not finite in bfloat16: .*; try --dtype float32"):
        generate(model, ["a red apple"], seeds=[0], numerics=Numerics(steps=1))


def test_one_bad_caption_is_named_among_others(model: Diffusion) -> None:
    table = token_embedding(model.text_encoder).weight
    (token,) = model.tokenizer("apple", add_special_tokens=False).input_ids
    with torch.no_grad():
        table[token] = torch.finfo(torch.float32).max
    captions = ["a painting", "a red apple", "a ship"]
    with pytest.raises(NotFinite, match=r"the text encoder gives .*: caption 'a red apple'; "):
        generate(model, captions, seeds=[0, 1, 2], numerics=Numerics(steps=1))
    assert len(generate(model, captions[::2], seeds=[0, 2], numerics=Numerics(steps=1))) == 2


def test_a_scorer_without_numbers_is_named(model: Diffusion, tiny_scorer: Path) -> None:
    scorer = open_scorer(str(tiny_scorer))
    largest(scorer._model.text_projection)
    with pytest.raises(NotFinite, match=r"the scorer gives .* text 'a red apple'"):
        traced(model, scorer, Part.DENOISER)
    largest(scorer._model.visual.proj)
    with pytest.raises(NotFinite, match=r"the scorer gives .* image 1 and 1 more"):
        traced(model, scorer, Part.DENOISER)


@pytest.mark.parametrize("weights", [[1e308, 1.0], [torch.inf, 1.0], [1e-320, 1e308]])
def test_an_edit_without_a_solution_is_refused(weights: list[float]) -> None:
    key_PD = torch.eye(2, 3, dtype=torch.float64) * 1e3
    sums = sums_of(key_PD, {"w": key_PD}, torch.tensor(weights, dtype=torch.float64))
    with pytest.raises(NotFinite, match="no solution in finite numbers"):
        solve_changes(sums, ridge=1e-2)
