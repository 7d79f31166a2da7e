"""Noises of several standard deviations are one draw, scaled."""

from dataclasses import replace

import pytest
import torch

from engine.model.tokens import Span
from engine.tracing.corruption import noise_draw, noise_scale, subject_noise
from schemas.caption import Caption
from schemas.component import Part
from schemas.errors import PlanError
from schemas.numerics import Numerics
from schemas.unit import Unit

UNIT = Unit(
    caption=Caption(caption="a red apple", subject="red apple", attribute="object"),
    seed=3,
    draw=1,
    part=Part.DENOISER,
    components=(),
    windows=(),
)
SPAN = Span(start=2, stop=4, eos=4)


def noised(noise: float, **changes: int) -> torch.Tensor:
    """Return the subject's noise of a unit, in an embedding of standard deviation 0.25."""
    unit = replace(UNIT, noise_sigmas=noise, **changes)
    scale = noise_scale(Numerics(noise_sigmas=(1.0, 4.0)).at(noise), 0.25)
    return subject_noise(unit, SPAN, shape=(8, 5), scale=scale)


def test_every_noise_has_the_same_standard_normal_numbers() -> None:
    weak, strong = noised(1.0), noised(4.0)
    assert torch.equal(strong, 4 * weak)  # a power of two: exact
    assert torch.equal(weak[2:4], 0.25 * noise_draw(UNIT, (2, 5)))
    assert not weak[[0, 1, 4, 5, 6, 7]].any()
    for other in (noised(4.0, draw=2), noised(4.0, seed=4)):
        assert not torch.allclose(other, strong)


def test_one_run_has_one_noise() -> None:
    with pytest.raises(PlanError, match="noise_sigmas is 1, 3: give one"):
        noise_scale(Numerics(noise_sigmas=(1.0, 3.0)), 0.25)
    assert noise_scale(Numerics(noise_absolute=0.5), 0.25) == 0.5
