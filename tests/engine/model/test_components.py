"""Components: their numbers in published architectures, their order, their names."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.model.components import list_components, sites_of
from engine.model.families.known import FAMILIES
from engine.model.model import Skeleton, TextEncoder
from engine.model.opening import open_model
from engine.model.parts import skeleton
from schemas.component import PAPER_KINDS, Kind, Part
from schemas.errors import UnknownComponent

SD_1_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}
SD_2_UNET = SD_1_UNET | {
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
SDXL_UNET = SD_1_UNET | {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
    "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
}
# From diffusers' scripts/convert_if.py, and of the published 4.3 billion parameters.
IF_UNET = {
    "sample_size": 64,
    "in_channels": 3,
    "out_channels": 6,
    "block_out_channels": [704, 1408, 2112, 2816],
    "layers_per_block": 3,
    "cross_attention_dim": 2816,
    "attention_head_dim": 64,
    "cross_attention_norm": "group_norm",
    "encoder_hid_dim": 4096,
    "addition_embed_type": "text",
    "resnet_time_scale_shift": "scale_shift",
    "act_fn": "gelu",
    "down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
}
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
OPEN_CLIP_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
}
OPEN_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published architecture: the configs' relevant fields, and what dqf finds in it."""

    pipeline: str
    unet: dict[str, Any]
    texts: dict[str, dict[str, Any]]
    kinds: dict[Kind, int]
    """Of the paper's kinds in the UNet."""
    text: int
    """Components of the paper's kinds in all text encoders."""
    unet_parameters: float
    """In billions, as published."""


SD_KINDS = {
    Kind.SELF_ATTENTION: 16,
    Kind.CROSS_ATTENTION: 16,
    Kind.FEED_FORWARD: 16,
    Kind.RESNET: 22,
}
SDXL_KINDS = {
    Kind.SELF_ATTENTION: 70,
    Kind.CROSS_ATTENTION: 70,
    Kind.FEED_FORWARD: 70,
    Kind.RESNET: 17,
}
PUBLISHED = {
    "SD 1": Published(
        pipeline="StableDiffusionPipeline",
        unet=SD_1_UNET,
        texts={"text_encoder": CLIP_L},
        kinds=SD_KINDS,
        text=24,
        unet_parameters=0.86,
    ),
    "SD 2.1": Published(
        pipeline="StableDiffusionPipeline",
        unet=SD_2_UNET,
        texts={"text_encoder": OPEN_CLIP_H},
        kinds=SD_KINDS,
        text=46,
        unet_parameters=0.87,
    ),
    "LCM": Published(
        pipeline="LatentConsistencyModelPipeline",
        unet=SD_1_UNET | {"sample_size": 96, "time_cond_proj_dim": 256},
        texts={"text_encoder": CLIP_L},
        kinds=SD_KINDS,
        text=24,
        unet_parameters=0.86,
    ),
    "SDXL": Published(
        pipeline="StableDiffusionXLPipeline",
        unet=SDXL_UNET,
        texts={"text_encoder": CLIP_L, "text_encoder_2": OPEN_CLIP_G},
        kinds=SDXL_KINDS,
        text=24 + 64,
        unet_parameters=2.57,
    ),
    "IF-I-XL": Published(
        pipeline="IFPipeline",
        unet=IF_UNET,
        texts={"text_encoder": T5_XXL},
        kinds={Kind.JOINT_ATTENTION: 22, Kind.RESNET: 36},
        text=48,
        unet_parameters=4.3,
    ),
}


def open_published(name: str) -> Skeleton:
    """Return the networks that the configs of a denoiser and of each text encoder describe."""
    model = PUBLISHED[name]
    family = FAMILIES[model.pipeline]
    denoiser = skeleton(family.networks[family.denoiser], model.unet)
    encoders = tuple(
        TextEncoder(name=part, module=skeleton(family.networks[part], config))
        for part, config in model.texts.items()
    )
    return Skeleton(name=name, family=family, encoders=encoders, denoiser=denoiser)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_architectures_have_these_components(name: str) -> None:
    expected, opened = PUBLISHED[name], open_published(name)
    components = list_components(opened, PAPER_KINDS)
    assert Counter(c.kind for c in components if c.part is Part.DENOISER) == expected.kinds
    assert sum(c.part is Part.TEXT_ENCODER for c in components) == expected.text
    billions = sum(p.numel() for p in opened.denoiser.parameters()) / 1e9
    assert billions == pytest.approx(expected.unet_parameters, abs=0.05)


def test_stable_diffusion_has_70_unet_components_and_xl_227() -> None:
    assert sum(SD_KINDS.values()) == 70
    assert sum(SDXL_KINDS.values()) == 227


def test_parameter_counts_are_the_modules_own(tiny_sd: Path) -> None:
    model = open_model(str(tiny_sd), device="cpu")
    for component in list_components(model, PAPER_KINDS):
        module = sites_of(model, [component.name])[component.name].module
        assert component.num_parameters == sum(p.numel() for p in module.parameters())


def test_unknown_name_gets_the_nearest() -> None:
    opened = open_published("SD 1")
    with pytest.raises(UnknownComponent, match=r"text_encoder\.layers\.0\.self_attn"):
        sites_of(opened, ["text_encoder.layers.0.self_attention"])


def test_skeleton_holds_no_weights() -> None:
    opened = open_published("SD 1")
    assert all(p.device == torch.device("meta") for p in opened.denoiser.parameters())
