"""Components: their parameters and their names; tests/engine/model/test_full_sizes.py has their
numbers in published architectures."""

from pathlib import Path

import pytest

from engine.model.components import list_components, sites_of
from engine.model.opening import open_model, open_skeleton
from schemas.component import PAPER_KINDS
from schemas.errors import UnknownComponent


def test_parameter_counts_are_the_modules_own(tiny_sd: Path) -> None:
    model = open_model(str(tiny_sd), device="cpu")
    for component in list_components(model, PAPER_KINDS):
        module = sites_of(model, [component.name])[component.name].module
        assert component.num_parameters == sum(p.numel() for p in module.parameters())


def test_unknown_name_gets_the_nearest(tiny_sd: Path) -> None:
    model = open_skeleton(str(tiny_sd))
    with pytest.raises(UnknownComponent, match=r"text_encoder\.layers\.0\.self_attn"):
        sites_of(model, ["text_encoder.layers.0.self_attention"])
