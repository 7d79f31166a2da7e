"""The training loop of the embedded model: what makes `make reference-model` reproducible."""

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.reference import loop
from engine.reference.phases import Phase


def train(work: Path, *, steps: int) -> nn.Module:
    torch.manual_seed(0)
    first, last = nn.Linear(6, 8), nn.Linear(8, 6)
    model = nn.Sequential(first, nn.Tanh(), last)
    optimizers = [loop.Muon([first.weight]), loop.adamw(last)]

    def loss_of(rng: torch.Generator) -> torch.Tensor:
        x_ND = torch.randn(16, 6, generator=rng)
        return (model(x_ND) - x_ND).square().mean()

    phase = Phase(name="small", steps=steps, rate=1e-2, seed=3)
    numbers = {"batch": 16, "decay": 0.9, "warmup": 1000}
    loop.train(phase, model, loss_of, work=work, optimizers=optimizers, **numbers)
    return model


def test_a_resumed_training_equals_an_unbroken_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    train(tmp_path / "a", steps=7)
    resumed, unbroken = train(tmp_path / "a", steps=15), train(tmp_path / "b", steps=15)
    for first, second in zip(resumed.parameters(), unbroken.parameters(), strict=True):
        assert torch.equal(first, second)


def test_training_ends_below_its_first_loss(tmp_path: Path) -> None:
    x_ND = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    losses = [
        (model(x_ND) - x_ND).square().mean().item()
        for model in (train(tmp_path, steps=steps) for steps in (1, 600))
    ]
    assert losses[1] < 0.5 * losses[0]


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 40)])
def test_orthogonal_keeps_the_singular_directions(shape: tuple[int, int]) -> None:
    """Same singular vectors, singular values near 1 (the published range is 0.7 to 1.2)."""
    matrix_MN = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    left, _, right = torch.linalg.svd(matrix_MN, full_matrices=False)
    moved = left.T @ loop.orthogonal(matrix_MN) @ right.T
    torch.testing.assert_close(moved, torch.diag(moved.diag()), atol=1e-4, rtol=0)
    assert moved.diag().min() > 0.3
    assert moved.diag().max() < 1.3
