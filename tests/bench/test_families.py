"""The table of families: rows of a family with both streams dead at the end, and of one without a
loader."""

from collections.abc import Mapping
from typing import Any

import pytest

from bench.families import CASES, row_of
from engine.testing.families import NEAR
from tests.models.full_sizes import FULL_SIZES

LAST = "transformer.single_transformer_blocks.37"


@pytest.fixture(scope="module")
def rows() -> Mapping[str, Mapping[str, Any]]:
    return {name: row_of(name) for name in ("flux-schnell", "pixart-sigma")}


def test_every_case_has_a_full_size() -> None:
    assert set(CASES) <= set(FULL_SIZES)


def test_reduced_models_agree(rows: Mapping[str, Mapping[str, Any]]) -> None:
    for row in rows.values():
        assert 0 < row["oracle_difference"] < NEAR
        assert row["image_difference"] < NEAR
        assert row["runs"] >= 16


def test_a_row_says_what_is_dead_editable_and_loadable(
    rows: Mapping[str, Mapping[str, Any]],
) -> None:
    flux, pixart = rows["flux-schnell"], rows["pixart-sigma"]
    assert flux["dead"] == f"{LAST}.mlp.text, {LAST}.attn.text, {LAST}.stream_text"
    assert "57 joint_attn, " in flux["components"]
    assert flux["lora"] == "transformer, text_encoder by diffusers, ComfyUI"
    assert pixart["dead"] == "transformer.adaln_single"
    assert "28 cross_attn" in pixart["editable"]
    assert "24 mlp of text_encoder" in pixart["editable"]
    assert pixart["lora"] == "none"
