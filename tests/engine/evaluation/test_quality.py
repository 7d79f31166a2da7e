"""CMMD and KID against plain loops over images, and what must hold for any sets."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.evaluation.quality import cmmd, kid

Distance = Callable[[torch.Tensor, torch.Tensor], float]


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


def plain_kid(x_RD: torch.Tensor, y_SD: torch.Tensor) -> float:
    width = x_RD.shape[1]
    x, y = (width**0.5 * x_RD).tolist(), (width**0.5 * y_SD).tolist()

    def kernel(p: list[float], q: list[float]) -> float:
        return (sum(a * b for a, b in zip(p, q, strict=True)) / width + 1) ** 3

    def unlike(a: list[list[float]]) -> float:
        pairs = [kernel(p, q) for i, p in enumerate(a) for j, q in enumerate(a) if i != j]
        return sum(pairs) / len(pairs)

    across = [kernel(p, q) for p in x for q in y]
    return unlike(x) + unlike(y) - 2 * sum(across) / len(across)


@given(r=st.integers(2, 9), s=st.integers(2, 9), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_both_are_what_plain_loops_give(r: int, s: int, seed: int) -> None:
    x_RD, y_SD = embeddings(r, seed=seed), embeddings(s, seed=seed + 100, shift=1.0)
    assert cmmd(x_RD, y_SD) == pytest.approx(plain_cmmd(x_RD, y_SD), abs=1e-9)
    assert kid(x_RD, y_SD) == pytest.approx(plain_kid(x_RD, y_SD), abs=1e-11)


@pytest.mark.parametrize("distance", [cmmd, kid])
def test_order_and_sides_change_nothing(distance: Distance) -> None:
    x_RD, y_SD = embeddings(40, seed=0), embeddings(30, seed=1, shift=2.0)
    turned = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    assert distance(x_RD, y_SD) == pytest.approx(distance(y_SD, x_RD), abs=1e-12)
    assert distance(x_RD, y_SD) == pytest.approx(distance(x_RD[turned], y_SD), abs=1e-9)


@pytest.mark.parametrize("distance", [cmmd, kid])
def test_farther_sets_are_farther(distance: Distance) -> None:
    x_RD = embeddings(200, seed=0)
    far = [distance(x_RD, embeddings(200, seed=1, shift=shift)) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert far == sorted(far)
    assert far[-1] > 10 * abs(far[0])


def test_equal_sets_are_at_no_distance() -> None:
    x_RD = embeddings(50, seed=0)
    assert cmmd(x_RD, x_RD.flip(0)) == pytest.approx(0, abs=1e-9)
    # The unbiased estimate leaves each image's pair with itself out of one set's mean alone.
    assert kid(x_RD, x_RD) < 0


def test_unbiased_estimate_is_about_zero_for_samples_of_one_distribution() -> None:
    values = [kid(embeddings(20, seed=s), embeddings(20, seed=s + 1000)) for s in range(200)]
    mean, spread = sum(values) / 200, torch.tensor(values).std().item()
    assert abs(mean) < 4 * spread / 200**0.5
    assert all(cmmd(embeddings(20, seed=s), embeddings(20, seed=s + 1000)) > 0 for s in range(20))


def test_sets_larger_than_a_block_of_the_kernel() -> None:
    x_RD, y_SD = embeddings(1500, seed=0), embeddings(1100, seed=1, shift=1.0)
    squared_RS = torch.cdist(x_RD, y_SD) ** 2
    across = (-squared_RS / 200).exp().mean()
    within = [(-(torch.cdist(z, z) ** 2) / 200).exp().mean() for z in (x_RD, y_SD)]
    assert cmmd(x_RD, y_SD) == pytest.approx(float(1000 * (sum(within) - 2 * across)), abs=1e-9)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="0 and 3 images"):
        cmmd(torch.zeros(0, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="needs 2 or more"):
        kid(torch.zeros(1, 4), torch.zeros(3, 4))
