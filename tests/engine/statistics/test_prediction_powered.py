"""Joined means: no bias, coverage, and no loss by a screen that is worth nothing."""

import numpy as np
import pytest

from engine.statistics.inference import Array, draws_of
from engine.statistics.prediction_powered import (
    bound_of_gain,
    miss_rate,
    prediction_powered,
)

STATES = 600
"""Independent repetitions: states of the same captions' number."""


def draw(shape: tuple[int, ...], rng: np.random.Generator, kind: str) -> Array:
    """Return standardized numbers of a distribution."""
    if kind == "normal":
        return rng.standard_normal(shape)
    if kind == "heavy":
        return rng.standard_t(3, shape) / np.sqrt(3)
    return rng.exponential(size=shape) - 1


def simulated(
    exact: int, others: int, *, correlation: float, kind: str, scale: float = 1.0, seed: int = 0
) -> tuple[Array, Array, Array]:
    """Return effects of mean 0.3, and screened ones of mean 2 and any scale."""
    rng = np.random.default_rng(seed)
    x = draw((STATES, exact + others), rng, kind)
    noise = draw((STATES, exact + others), rng, kind)
    f = correlation * x + np.sqrt(1 - correlation**2) * noise
    return 0.3 + x[:, :exact], 2 + scale * f[:, :exact], 2 + scale * f[:, exact:]


def coverage(exact: int, others: int, *, correlation: float, kind: str) -> tuple[float, float]:
    """Return the share of intervals with the true mean, and the mean of all estimates."""
    x, f, g = simulated(exact, others, correlation=correlation, kind=kind)
    found = prediction_powered(x, f, g, draws_of(tuple(map(str, range(exact)))))
    covers = (found.low_S <= 0.3) & (found.high_S >= 0.3)
    return float(covers.mean()), float(found.mean_S.mean())


CASES = [
    (exact, others, correlation, kind)
    for exact in (6, 12, 36)
    for others in (30, 200)
    for correlation in (-0.5, 0.0, 0.5, 0.94)
    for kind in ("normal", "heavy", "exponential")
]
FAST = [(6, 30, 0.94, "normal"), (12, 200, 0.0, "heavy"), (12, 30, 0.5, "exponential")]


@pytest.mark.parametrize(
    "case", [c if c in FAST else pytest.param(c, marks=pytest.mark.slow) for c in CASES], ids=str
)
def test_intervals_cover_and_the_mean_has_no_bias(case: tuple[int, int, float, str]) -> None:
    """95 % within binomial error; for exponential effects of six captions 91 %."""
    exact, others, correlation, kind = case
    share, mean = coverage(exact, others, correlation=correlation, kind=kind)
    least = 0.91 if (exact, kind) == (6, "exponential") else 0.95 if kind != "exponential" else 0.93
    assert share > least - 3 * np.sqrt(0.05 * 0.95 / STATES)
    assert mean == pytest.approx(0.3, abs=4 / np.sqrt(exact * STATES))


def test_the_variance_falls_as_the_correlation_allows() -> None:
    """Near the bound with many others, whatever the screen's unit."""
    for scale in (1.0, 0.01, 50.0):
        x, f, g = simulated(40, 4000, correlation=0.94, kind="normal", scale=scale)
        found = prediction_powered(x, f, g, draws_of(tuple(map(str, range(40)))))
        gain = x.mean(1).var() / found.mean_S.var()
        assert 0.8 * bound_of_gain(0.94) < gain < 1.2 * bound_of_gain(0.94)
        assert float(np.median(found.gain_S)) == pytest.approx(gain, rel=0.2)
        assert float(found.lambda_S.mean()) == pytest.approx(0.94 / scale, rel=0.05)


@pytest.mark.parametrize("correlation", [0.0, -0.7])
def test_a_screen_that_is_worth_nothing_costs_little(correlation: float) -> None:
    """Its weight is zero as a rule, and the variance that of the exact captions alone."""
    x, f, g = simulated(12, 100, correlation=correlation, kind="normal", scale=3.0)
    found = prediction_powered(x, f, g, draws_of(tuple(map(str, range(12)))))
    assert float((found.lambda_S == 0).mean()) > 0.5
    assert float(found.mean_S.var()) < 1.1 * float(x.mean(1).var())
    if correlation < 0:
        assert float(np.abs(found.lambda_S).mean()) < 0.01


@pytest.mark.parametrize(("exact", "others"), [(3, 20), (6, 0), (6, 1)])
def test_with_too_few_captions_the_exact_ones_count_alone(exact: int, others: int) -> None:
    x, f, g = simulated(exact, others, correlation=0.94, kind="normal")
    found = prediction_powered(x, f, g, draws_of(tuple(map(str, range(exact)))))
    assert np.allclose(found.mean_S, x.mean(1))
    assert np.allclose(found.se_S, x.std(1, ddof=1) / np.sqrt(exact))
    assert (found.lambda_S == 0).all()


def test_leaving_one_out_is_what_it_says() -> None:
    """The closed form equals the regression without the caption."""
    x, f, g = simulated(9, 50, correlation=0.9, kind="normal")
    found = prediction_powered(x, f, g, draws_of(tuple(map(str, range(9)))))
    state = 0
    corrected = []
    for caption in range(9):
        kept = [n for n in range(9) if n != caption]
        cov = np.cov(x[state, kept], f[state, kept])
        weight = cov[0, 1] / cov[1, 1] * 50 / 59
        corrected.append(x[state, caption] - weight * (f[state, caption] - g[state].mean()))
    assert float(found.mean_S[state]) == pytest.approx(float(np.mean(corrected)))


def test_one_exact_caption_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two exact captions"):
        prediction_powered(np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 5)), draws_of(("a",)))


def test_a_miss_rate_and_its_interval() -> None:
    """Ten chosen of which five are weak, and 40 others, half of them sampled: one is strong."""
    chosen = np.array([9.0, 8, 7, 6, 5, 0.4, 0.3, 0.2, 0.1, 0.0])
    sampled = np.array([5.5, *np.linspace(-3, -1, 19)])
    found = miss_rate(chosen, sampled, unchosen=40)
    # The tenth largest, of which each sampled one is two: 9 8 7 6 5.5 5.5 5 0.4 0.3 0.2.
    assert (found.found, found.sampled) == (1, 20)
    assert found.share == pytest.approx(1 / 20 * 40 / 10)
    assert found.low < found.share < found.high
    assert found.high == pytest.approx(0.2487 * 4, rel=1e-3)


def test_miss_rates_cover() -> None:
    """Where a third of the top is not chosen, intervals of samples of the rest contain that."""
    rng = np.random.default_rng(1)
    effects = rng.standard_normal(300)
    top = np.argsort(-effects)[:30]
    chosen = np.concatenate([top[:20], rng.choice(np.setdiff1d(np.arange(300), top), 10, False)])
    rest = np.setdiff1d(np.arange(300), chosen)
    covers = 0
    for _ in range(300):
        sampled = rng.choice(rest, 60, replace=False)
        found = miss_rate(effects[chosen], effects[sampled], unchosen=len(rest))
        covers += found.low <= 1 / 3 <= found.high
    assert covers / 300 > 0.93


def test_a_miss_rate_needs_both() -> None:
    with pytest.raises(ValueError, match="chosen and sampled"):
        miss_rate(np.ones(3), np.ones(0), unchosen=5)
