"""What the bench of the screen computes of effects and row evaluations."""

import numpy as np
import pytest

from bench.screening.agreement import agreement, gain, least_share, share_found
from bench.screening.work import all_steps, every_step, pays_from, screen


def effects(noise: float, *, cells: int = 60, captions: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Return exact effects, and the same with noise of its own."""
    rng = np.random.default_rng(0)
    exact = 0.05 * rng.standard_normal((cells, 1)) + 0.02 * rng.standard_normal((cells, captions))
    return exact, exact + noise * rng.standard_normal((cells, captions))


def test_a_perfect_screen_agrees() -> None:
    exact, same = effects(0.0)
    found = agreement(exact, same)
    assert (found.within, found.of_means) == (pytest.approx(1.0), pytest.approx(1.0))
    assert (found.found, found.missed) == (1.0, 0.0)
    assert least_share(exact.mean(1), same.mean(1)) == pytest.approx(0.1)


def test_a_screen_of_noise_does_not() -> None:
    exact, _ = effects(0.0)
    noise = np.random.default_rng(1).standard_normal(exact.shape)
    assert abs(agreement(exact, noise).within) < 0.1
    assert share_found(exact.mean(1), -exact.mean(1)) == 0.0


def test_the_gain_nears_its_bound() -> None:
    """As many captions are screened as a run has, so that it stays below the bound."""
    exact, screened = effects(0.008)
    found = gain(exact, screened, exact=10, draws=100)
    assert 1.5 < found.measured < found.bound
    assert found.bound == pytest.approx(1 + (0.02 / 0.008) ** 2, rel=0.3)


def test_the_ledger_says_what_a_screen_saves() -> None:
    """At the sizes of emoji-sd and Stable Diffusion 1, for every single step."""
    assert every_step(29, 20) / screen(20) > 30
    assert every_step(70, 50) / screen(50) > 200
    assert every_step(1, 3) == 2 * 3 + (3 + 2 + 1) - 1.5
    assert all_steps(pays_from(20), 20) > screen(20) >= all_steps(pays_from(20) - 1, 20)
