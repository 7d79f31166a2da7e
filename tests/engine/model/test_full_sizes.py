"""Components and parameters of the published architectures at full size, on the meta device."""

from collections import Counter
from functools import cache

import pytest
import torch

from engine.model.components import list_components
from engine.model.model import Skeleton
from schemas.component import PAPER_KINDS, Part
from tests.models.full_sizes import FULL_SIZES


@cache
def opened(name: str) -> Skeleton:
    """Return a skeleton that no test changes."""
    return FULL_SIZES[name].open(name)


@pytest.mark.parametrize("name", FULL_SIZES)
def test_published_architectures_have_these_components(name: str) -> None:
    expected, model = FULL_SIZES[name], opened(name)
    components = list_components(model, PAPER_KINDS)
    denoiser = [c for c in components if c.part is Part.DENOISER]
    assert Counter(c.kind for c in denoiser if not c.is_dead) == expected.kinds
    assert sum(c.is_dead for c in components) == expected.dead
    assert sum(c.part is Part.TEXT_ENCODER for c in components) == expected.text


@pytest.mark.parametrize("name", FULL_SIZES)
def test_published_architectures_have_these_parameters(name: str) -> None:
    weights = list(opened(name).denoiser.parameters())
    assert all(weight.device == torch.device("meta") for weight in weights)
    billions = sum(weight.numel() for weight in weights) / 1e9
    assert billions == pytest.approx(FULL_SIZES[name].billions, abs=6e-4)


@pytest.mark.parametrize(
    ("name", "components"),
    [
        ("sd-1.4", 70),
        ("sdxl", 227),
        ("pixart-sigma", 84),
        ("sana", 60),
        ("sana-0.6b", 84),
        ("sd-3", 94),
        ("sd-3.5-medium", 107),
        ("sd-3.5-large", 150),
        ("flux-dev", 226),
        ("z-image", 126),
        ("qwen-image", 238),
        ("flux2-dev", 222),
        ("flux2-klein-4b", 98),
    ],
)
def test_a_denoiser_has_so_many_live_components(name: str, components: int) -> None:
    found = list_components(opened(name), PAPER_KINDS)
    live = [c for c in found if c.part is Part.DENOISER and not c.is_dead]
    assert len(live) == components
