"""The table of families: what configs say, and that reduced models agree."""

import pytest

from bench.families import CASES, at_full_size, at_reduced_width
from engine.testing.families import NEAR
from tests.models.full_sizes import FULL_SIZES

LAST = "transformer.single_transformer_blocks.37"


def test_every_case_has_a_full_size() -> None:
    assert set(CASES) <= set(FULL_SIZES)


@pytest.mark.slow
def test_a_reduced_model_agrees() -> None:
    row = at_reduced_width(CASES["sd-3"]())
    assert 0 < float(str(row["oracle_difference"])) < NEAR
    assert float(str(row["image_difference"])) < NEAR


def test_a_row_of_a_language_models_family() -> None:
    row = at_full_size(FULL_SIZES["flux2-klein-4b"].open("flux2-klein-4b"))
    dead = str(row["dead"]).split(", ")
    single = "transformer.single_transformer_blocks.19"
    assert dead[:2] == ["transformer.time_guidance_embed", f"{single}.mlp.text"]
    assert "text_encoder.layers.26" not in dead
    assert {f"text_encoder.layers.{n}" for n in range(27, 36)} <= {*dead}
    assert "5 joint_attn" in str(row["editable"])
    assert row["lora"] == "transformer by diffusers, ComfyUI"


def test_a_row_says_what_is_dead_editable_and_loadable() -> None:
    flux, pixart = (
        at_full_size(FULL_SIZES[name].open(name)) for name in ("flux-schnell", "pixart-sigma")
    )
    assert flux["dead"] == f"{LAST}.mlp.text, {LAST}.attn.text, {LAST}.stream_text"
    assert "57 joint_attn, " in str(flux["components"])
    assert flux["lora"] == "transformer, text_encoder by diffusers, ComfyUI"
    assert pixart["dead"] == "transformer.adaln_single"
    assert "28 cross_attn" in str(pixart["editable"])
    assert "24 mlp of text_encoder" in str(pixart["editable"])
    assert pixart["lora"] == "none"
