"""Components and parameters of transformers of full size, on the meta device.

The constructor arguments are those that give the published numbers of parameters.
"""

from typing import Any

import diffusers
import pytest
import torch

from engine.model.components import list_components
from engine.model.families.cross_attention import PixArtSigma
from engine.model.families.joint_attention import Flux, StableDiffusion3
from engine.model.families.sana import Sana
from engine.model.model import Family, Skeleton
from schemas.component import PAPER_KINDS

SD3 = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
MEDIUM = {
    **SD3,
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}
LARGE = {
    **SD3,
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "qk_norm": "rms_norm",
}
SIGMA = {"sample_size": 128, "use_additional_conditions": False, "caption_channels": 4096}


@pytest.mark.parametrize(
    ("family", "kind", "options", "billions", "live", "dead"),
    [
        (PixArtSigma(), diffusers.PixArtTransformer2DModel, SIGMA, 0.611, 84, 0),
        (Sana(), diffusers.SanaTransformer2DModel, {}, 1.604, 60, 0),
        (StableDiffusion3(), diffusers.SD3Transformer2DModel, SD3, 2.028, 94, 1),
        (StableDiffusion3(), diffusers.SD3Transformer2DModel, MEDIUM, 2.243, 107, 1),
        (StableDiffusion3(), diffusers.SD3Transformer2DModel, LARGE, 8.057, 150, 1),
        (Flux(), diffusers.FluxTransformer2DModel, {"guidance_embeds": True}, 11.901, 226, 2),
    ],
    ids=["pixart-sigma", "sana", "sd-3", "sd-3.5-medium", "sd-3.5-large", "flux-dev"],
)
def test_components_of_the_papers_kinds(
    family: Family, kind: Any, options: dict[str, Any], billions: float, live: int, dead: int
) -> None:
    with torch.device("meta"):
        denoiser = kind(**options)
    skeleton = Skeleton(name="-", family=family, encoders=(), denoiser=denoiser)
    found = list_components(skeleton, PAPER_KINDS)
    parameters = sum(weights.numel() for weights in denoiser.parameters())
    assert parameters / 1e9 == pytest.approx(billions, abs=6e-4)
    assert sum(not component.is_dead for component in found) == live
    assert sum(component.is_dead for component in found) == dead
