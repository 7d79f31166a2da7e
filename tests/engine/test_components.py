"""Components: their numbers in published architectures, their order, their names."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.components import list_components, module_of
from engine.models import open_model, skeleton_of
from engine.sampling import generate
from schemas.component import Kind, Part
from schemas.errors import UnknownComponent
from schemas.plan import Numerics

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
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
SD_1_TEXT = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
SD_2_TEXT = {"hidden_size": 1024, "num_hidden_layers": 23, "num_attention_heads": 16}


@pytest.mark.parametrize(
    ("unet", "text", "num_text"),
    [(SD_1_UNET, SD_1_TEXT, 24), (SD_2_UNET, SD_2_TEXT, 46)],
    ids=["SD 1", "SD 2"],
)
def test_stable_diffusion_has_70_unet_components(
    unet: dict[str, Any], text: dict[str, Any], num_text: int
) -> None:
    components = list_components(skeleton_of("sd", unet_config=unet, text_config=text))
    kinds = Counter(c.kind for c in components if c.part is Part.UNET)
    assert kinds == {
        Kind.SELF_ATTENTION: 16,
        Kind.CROSS_ATTENTION: 16,
        Kind.FEED_FORWARD: 16,
        Kind.RESNET: 22,
    }
    assert sum(c.part is Part.TEXT_ENCODER for c in components) == num_text


def test_order_is_the_order_of_execution(tiny_sd: Path) -> None:
    model = open_model(str(tiny_sd), device="cpu")
    listed = [c.name for c in list_components(model)]
    ran: list[str] = []
    hooks = [
        module_of(model, name).register_forward_hook(lambda *_, name=name: ran.append(name))
        for name in listed
    ]
    generate(model, ["a red apple"], seeds=[0], numerics=Numerics(steps=1, guidance=1.0))
    for hook in hooks:
        hook.remove()
    unet = [name for name in ran if name.startswith("unet.")]
    text = [name for name in ran if name.startswith("text_encoder.")]
    assert [*unet, *text] == listed


def test_parameter_counts_are_the_modules_own(tiny_sd: Path) -> None:
    model = open_model(str(tiny_sd), device="cpu")
    for component in list_components(model)[:6]:
        module = module_of(model, component.name)
        assert component.num_parameters == sum(p.numel() for p in module.parameters())


def test_unknown_name_gets_the_nearest() -> None:
    skeleton = skeleton_of("sd", unet_config=SD_1_UNET, text_config=SD_1_TEXT)
    with pytest.raises(UnknownComponent, match=r"text_encoder\.layers\.0\.self_attn"):
        module_of(skeleton, "text_encoder.layers.0.self_attention")


def test_skeleton_holds_no_weights() -> None:
    skeleton = skeleton_of("sd", unet_config=SD_1_UNET, text_config=SD_1_TEXT)
    assert all(p.device == torch.device("meta") for p in skeleton.unet.parameters())
