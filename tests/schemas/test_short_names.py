"""Short names of components are read at a glance and never shared."""

import pytest

from schemas.short_names import short_name, short_names


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2", "down 1 cross-attn 0"),
        ("unet.up_blocks.0.attentions.2.transformer_blocks.9.ff", "up 0 feed-forward 2.9"),
        ("unet.mid_block.resnets.1", "mid resnet 1"),
        ("unet.up_blocks.1.attentions.0", "up 1 joint-attn 0"),
        ("unet.mid_block", "mid block"),
        ("text_encoder_2.layers.31.mlp", "encoder 2 layer 31 MLP"),
        ("text_encoder.layers.0.self_attn.heads.3", "layer 0 self-attn head 3"),
        ("unet.mid_block.resnets.0..unet.up_blocks.0.resnets.0", "mid resnet 0 to up 0 resnet 0"),
        ("something.else", "something.else"),
        ("text_entries", "all text entries"),
    ],
)
def test_short_names(name: str, short: str) -> None:
    assert short_name(name) == short


def test_names_that_would_be_alike_stay_whole() -> None:
    alike = ("unet.up_blocks.0.attentions.1.transformer_blocks.0.attn1.x", "unet.mid_block")
    first = "unet.up_blocks.1.attentions.0.transformer_blocks.0.ff"
    assert short_names([first, *alike]) == {
        first: "up 1 feed-forward 0", alike[0]: alike[0], alike[1]: "mid block",
    }  # fmt: skip
    shared = ("unet.mid_block.resnets.1", "mid resnet 1")
    assert short_names(shared) == dict(zip(shared, shared, strict=True))
