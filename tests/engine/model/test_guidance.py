"""What a model would ignore is refused: a guidance scale, a negative prompt; and its defaults."""

import json
from pathlib import Path

import pytest
import torch

from engine.model.defaults import default_sampling
from engine.model.families.joint_attention import Flux
from engine.model.guidance import check_guidance, is_guided
from engine.model.model import Diffusion
from engine.model.opening import from_pipeline, open_skeleton
from schemas.errors import PlanError
from schemas.numerics import Numerics
from tests.models.transformers import build_flux


@pytest.fixture(scope="module")
def schnell() -> Diffusion:
    return from_pipeline(
        build_flux(guidance_embeds=False),
        name="schnell",
        family=Flux(),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def test_a_distilled_model_refuses_a_guidance_scale(schnell: Diffusion) -> None:
    with pytest.raises(PlanError, match=r"guidance 3.5: model 'schnell' .*--guidance 1"):
        check_guidance(schnell, Numerics(guidance=3.5))
    check_guidance(schnell, Numerics(guidance=1.0))
    assert not is_guided(schnell, Numerics(guidance=1.0))


def test_a_negative_prompt_that_nothing_reads_is_refused(
    schnell: Diffusion, tiny_flux: Path, tiny_sd: Path
) -> None:
    dev, sd = open_skeleton(str(tiny_flux)), open_skeleton(str(tiny_sd))
    for model, guidance in ((schnell, 1.0), (dev, 3.5)):
        with pytest.raises(
            PlanError, match=r"negative prompt 'a ship': .*it reads no negative prompt"
        ):
            check_guidance(model, Numerics(guidance=guidance, negative_prompt="a ship"))
    check_guidance(dev, Numerics(guidance=3.5))
    assert not is_guided(dev, Numerics(guidance=3.5))
    with pytest.raises(PlanError, match=r"negative prompt 'a ship': .*above 1 only"):
        check_guidance(sd, Numerics(guidance=1.0, negative_prompt="a ship"))
    check_guidance(sd, Numerics(guidance=1.5, negative_prompt="a ship"))
    assert is_guided(sd, Numerics(guidance=1.5))


@pytest.mark.parametrize(
    ("kind", "embeds", "expected"),
    [
        ("StableDiffusion3Pipeline", None, (28, 7.0)),
        ("PixArtSigmaPipeline", None, (20, 4.5)),
        ("SanaSprintPipeline", True, (2, 4.5)),
        ("FluxPipeline", True, (28, 3.5)),
        ("FluxPipeline", False, (4, 1.0)),
        ("StableDiffusionPipeline", None, (50, 7.5)),
    ],
)
def test_a_folder_has_the_defaults_of_its_pipeline(
    tmp_path: Path, kind: str, embeds: bool | None, expected: tuple[int, float]
) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({"guidance_embeds": embeds}))
    assert default_sampling(str(tmp_path)) == expected


def test_a_model_that_cannot_be_opened_has_the_defaults_of_stable_diffusion(tmp_path: Path) -> None:
    assert default_sampling(str(tmp_path / "missing")) == (50, 7.5)
