"""Joined means: no bias, coverage, and no loss by a screen that is worth nothing."""

import numpy as np
import pytest

from engine.statistics.inference import Array, draws_of, mean_estimates
from engine.statistics.prediction_powered import (
    bound_of_gain,
    miss_rate,
    prediction_powered,
)

STATES = 600
CORRELATIONS = (-0.3, 0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
SCALES = (0.05, 1.0, 0.5, 2.0, 1.0, 1.0, 2.0, 0.5)
"""Correlations with the screen, and scales, of the states of one run in the coverage test."""


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
    """Return effects of mean 0.3, and screened ones of mean 2 and any scale, of independent
    states."""
    rng = np.random.default_rng(seed)
    x = draw((STATES, exact + others), rng, kind)
    noise = draw((STATES, exact + others), rng, kind)
    f = correlation * x + np.sqrt(1 - correlation**2) * noise
    return 0.3 + x[:, :exact], 2 + scale * f[:, :exact], 2 + scale * f[:, exact:]


def one_run(
    rng: np.random.Generator, exact: int, others: int, *, kind: str, alike: float
) -> tuple[Array, Array, Array]:
    """Return the effects of eight states of mean zero, whose captions share the part `alike` of
    their variance: exact, screened, and screened of the others."""

    def drawn() -> Array:
        common, own = (draw((states, exact + others), rng, kind) for states in (1, 8))
        return np.sqrt(alike) * common + np.sqrt(1 - alike) * own

    r = np.array(CORRELATIONS)[:, None]
    x, scale = drawn(), np.array(SCALES)[:, None]
    f = scale * (r * x + np.sqrt(1 - r**2) * drawn())
    return scale * x[:, :exact], f[:, :exact], f[:, exact:]


CASES = [
    (exact, others, alike, kind)
    for exact in (6, 12, 36)
    for others, alike in ((30, 0.8), (200, 0.0))
    for kind in ("normal", "heavy", "exponential")
]
RUNS = 1000
"""Runs of a case, of 8,000 intervals."""


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_intervals_cover_as_those_of_the_exact_captions(
    case: tuple[int, int, float, str],
) -> None:
    """95 %, or what the exact captions' own intervals reach, as with skewed effects of few captions
    these fall short; no mean has a bias."""
    covers, own, means = _covered(*case, runs=RUNS)
    _no_smaller(covers, own if own.mean() < 0.95 else np.full(RUNS, 0.95))
    error = means.std(0) / np.sqrt(RUNS)
    assert (np.abs(means.mean(0)) < 5 * error).all()


def test_few_exact_captions_of_skewed_effects_cover_too() -> None:
    """Where a weight that is tuned on the state's own captions falls short by four points."""
    covers, own, _ = _covered(6, 200, 0.0, "exponential", runs=400)
    _no_smaller(covers, own)


def _covered(
    exact: int, others: int, alike: float, kind: str, *, runs: int
) -> tuple[Array, Array, Array]:
    """Return for each run the share of its states whose interval covers, the same of the exact
    captions' own intervals, and the means of its states."""
    rng, draws = np.random.default_rng(exact), draws_of(tuple(map(str, range(exact))))
    covers, own, means = [], [], []
    for _ in range(runs):
        x, f, g = one_run(rng, exact, others, kind=kind, alike=alike)
        found, alone = prediction_powered(x, f, g, draws), mean_estimates(x, draws)
        covers.append(_share(found.low_S, found.high_S))
        own.append(_share(alone.low_S, alone.high_S))
        means.append(found.mean_S)
    return np.array(covers), np.array(own), np.array(means)


def _share(low_S: Array, high_S: Array) -> float:
    """Return the share of intervals with zero; an end without a bound is NaN."""
    return float((~(low_S > 0) & ~(high_S < 0)).mean())


def _no_smaller(covers: Array, least: Array) -> None:
    """Assert that the mean share is no smaller beyond three standard errors of the difference
    between runs, which are independent."""
    missing = least - covers
    assert missing.mean() < 3 * missing.std() / np.sqrt(len(missing))


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
    """Its weight is near zero, and the variance that of the exact captions alone."""
    x, f, g = simulated(12, 100, correlation=correlation, kind="normal", scale=3.0)
    found = prediction_powered(x, f, g, draws_of(tuple(map(str, range(12)))))
    assert float(found.lambda_S.max()) < (0.01 if correlation == 0 else 1e-12)
    assert float(found.mean_S.var()) < 1.02 * float(x.mean(1).var())


def test_a_single_state_has_no_others_to_be_weighed_by() -> None:
    x, f, g = simulated(12, 100, correlation=0.94, kind="normal")
    found = prediction_powered(x[:1], f[:1], g[:1], draws_of(tuple(map(str, range(12)))))
    assert found.lambda_S.tolist() == [0.0]


def test_constant_screens_and_effects_have_no_weight() -> None:
    """Rounding is no variance, also where one caption alone differs."""
    x, f, g = simulated(12, 100, correlation=0.94, kind="normal")
    x, f, g = x[:4].copy(), f[:4].copy(), g[:4].copy()
    f[:] = 0.1 + 0.2
    f[0, 0] = 5.0
    found = prediction_powered(x, f, g, draws_of(tuple(map(str, range(12)))))
    assert np.isfinite(found.mean_S).all()
    assert float(found.lambda_S.max()) < 1.0


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
        covs = [np.cov(x[other, kept], f[other, kept]) for other in range(1, STATES)]
        cross = sum(cov[0, 1] / np.trace(cov) for cov in covs)
        weight = cross / sum(cov[1, 1] / np.trace(cov) for cov in covs) * 50 / 59
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
