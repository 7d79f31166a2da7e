"""CMMD against plain loops over images, and what must hold for any sets."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.evaluation.quality import cmmd


def embeddings(rows: int, *, seed: int, width: int = 12, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x_RD = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    x_RD[:, 0] += shift
    return torch.nn.functional.normalize(x_RD, dim=1)


def plain_cmmd(x_RD: torch.Tensor, y_SD: torch.Tensor) -> float:
    def mean(a: list[list[float]], b: list[list[float]]) -> float:
        return sum(math.exp(-(math.dist(p, q) ** 2) / 200) for p in a for q in b) / len(a) / len(b)

    x, y = x_RD.tolist(), y_SD.tolist()
    return 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


@given(r=st.integers(2, 9), s=st.integers(2, 9), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_it_is_what_plain_loops_give(r: int, s: int, seed: int) -> None:
    x_RD, y_SD = embeddings(r, seed=seed), embeddings(s, seed=seed + 100, shift=1.0)
    assert cmmd(x_RD, y_SD) == pytest.approx(plain_cmmd(x_RD, y_SD), abs=1e-9)


def test_order_and_sides_change_nothing() -> None:
    x_RD, y_SD = embeddings(40, seed=0), embeddings(30, seed=1, shift=2.0)
    turned = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    assert cmmd(x_RD, y_SD) == pytest.approx(cmmd(y_SD, x_RD), abs=1e-12)
    assert cmmd(x_RD, y_SD) == pytest.approx(cmmd(x_RD[turned], y_SD), abs=1e-9)


def test_farther_sets_are_farther() -> None:
    x_RD = embeddings(200, seed=0)
    far = [cmmd(x_RD, embeddings(200, seed=1, shift=shift)) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert far == sorted(far)
    assert far[-1] > 10 * abs(far[0])


def test_equal_sets_are_at_no_cmmd() -> None:
    x_RD = embeddings(50, seed=0)
    assert cmmd(x_RD, x_RD.flip(0)) == pytest.approx(0, abs=1e-9)


def test_sets_larger_than_a_block_of_the_kernel() -> None:
    x_RD, y_SD = embeddings(1500, seed=0), embeddings(1100, seed=1, shift=1.0)
    squared_RS = torch.cdist(x_RD, y_SD) ** 2
    across = (-squared_RS / 200).exp().mean()
    within = [(-(torch.cdist(z, z) ** 2) / 200).exp().mean() for z in (x_RD, y_SD)]
    assert cmmd(x_RD, y_SD) == pytest.approx(float(1000 * (sum(within) - 2 * across)), abs=1e-9)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="0 and 3 images"):
        cmmd(torch.zeros(0, 4), torch.zeros(3, 4))
