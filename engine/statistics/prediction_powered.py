"""Means over captions of which few were traced exactly and many screened, joined without bias.

    mean = mean over the exact captions of (x - lambda f) + lambda (mean of f over the others)

with a caption's exact effect x and its screened effect f (prediction-powered inference;
Angelopoulos et al. 2023). It is right whatever the screen is worth, and lambda is tuned to a small
variance: cov(x, f) / var(f) * m / (n + m) for n exact captions and m others (PPI++; Angelopoulos,
Duchi and Zrnic 2023), of a state's other states together. Tuned on few captions of the state
itself, it would follow their largest effects: intervals of skewed effects of six captions then
cover at 89 % in place of 93 %, and the variance is above that of the exact captions alone. For many
others and alike states the variance falls to 1 - r^2 of that of the exact captions, with the
correlation r of x and f.

Shapes: S states, C exact captions, O others (suffixes `_SC`, `_SO`, `_S`).
"""

from dataclasses import dataclass

import numpy as np

from engine.statistics.inference import ROUNDING, SHARE, Array, Draws, studentized

LEAST_CAPTIONS = 5
"""With fewer exact captions, lambda is zero: each caption's is tuned on the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionPowered:
    """Means over all captions, one for each state."""

    mean_S: Array
    se_S: Array
    low_S: Array
    high_S: Array
    """Ends of the 95 % intervals."""
    lambda_S: Array
    """Weight of the screen, the mean over captions; 0 where the others' screen is worth nothing."""
    gain_S: Array
    """Variance of the exact captions' own mean, divided by that of this one; NaN where neither
    varies."""


def prediction_powered(
    x_SC: Array, f_SC: Array, others_SO: Array, draws: Draws
) -> PredictionPowered:
    """Return the means over captions: `x_SC` exact and `f_SC` screened effects of the same
    captions, `others_SO` screened effects of captions that were not traced exactly.

    Lambda of a caption and state is tuned on the other exact captions, so that the mean has no
    bias, and on the other states, so that intervals hold. It is zero where these show no positive
    correlation, and for a single state. The ends of the interval are those of t for exact captions
    (`studentized`), `draws` theirs. At least two exact captions are needed; ValueError.
    """
    count, others = x_SC.shape[1], others_SO.shape[1]
    if count < 2:
        raise ValueError("a mean needs at least two exact captions")
    lambda_SC = _tuned(x_SC, f_SC, others)
    mean_others_S1 = others_SO.mean(1, keepdims=True) if others else np.zeros((len(x_SC), 1))
    corrected_SC = x_SC - lambda_SC * (f_SC - mean_others_S1)
    lambda_S = lambda_SC.mean(1)
    own_S = x_SC.var(1, ddof=1) / count
    variance_S = corrected_SC.var(1, ddof=1) / count
    if others > 1:
        variance_S = variance_S + lambda_S**2 * others_SO.var(1, ddof=1) / others
    mean_S, se_S = corrected_SC.mean(1), np.sqrt(variance_S)
    t = studentized(corrected_SC, draws)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain_S = own_S / variance_S
    return PredictionPowered(
        mean_S=mean_S,
        se_S=se_S,
        low_S=mean_S - t.upper_S * se_S,
        high_S=mean_S - t.lower_S * se_S,
        lambda_S=lambda_S,
        gain_S=gain_S,
    )


def _tuned(x_SC: Array, f_SC: Array, others: int) -> Array:
    """Return each exact caption's lambda_SC, tuned on the others and the other states.

    It has the least sum over these states of var(x - lambda f) / (var x + var f): each state counts
    alike, whatever its scale. Sums without a caption follow from those of all: with deviations d
    and n captions, the cross sum of the others is sum(d_x d_f) - n / (n - 1) d_x d_f of the
    caption.
    """
    count = x_SC.shape[1]
    if count < LEAST_CAPTIONS or others < 2 or len(x_SC) < 2:
        return np.zeros_like(x_SC)
    dx_SC, df_SC = _deviations(x_SC), _deviations(f_SC)
    left = count / (count - 1)

    def without(a_SC: Array, b_SC: Array) -> Array:
        product_SC = a_SC * b_SC
        return product_SC.sum(1, keepdims=True) - left * product_SC

    of_f_SC = np.maximum(without(df_SC, df_SC), 0)
    scale_SC = without(dx_SC, dx_SC) + of_f_SC
    # A caption may hold all of the variance: what is left without it is rounding.
    varies_SC = scale_SC > ROUNDING[np.float32] * (dx_SC**2 + df_SC**2).sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        cross_SC = np.where(varies_SC, without(dx_SC, df_SC) / scale_SC, 0.0)
        spread_SC = np.where(varies_SC, of_f_SC / scale_SC, 0.0)
        slope_SC = _of_others(cross_SC) / _of_others(spread_SC)
    is_worth_SC = np.isfinite(slope_SC) & (slope_SC > 0)
    return np.where(is_worth_SC, slope_SC * others / (count + others), 0.0)


def _deviations(a_SC: Array) -> Array:
    """Return differences from the means over captions; none of a constant row."""
    d_SC = a_SC - a_SC.mean(1, keepdims=True)
    d_SC[np.abs(d_SC).max(1) <= ROUNDING[np.float64] * np.abs(a_SC).max(1)] = 0
    return d_SC


def _of_others(a_SC: Array) -> Array:
    """Return for each state the sum over the other states."""
    return a_SC.sum(0) - a_SC


def clipped(effects: Array, *, at: float) -> Array:
    """Return screened effects within +-`at`: a gradient can be far off where a score saturates.

    Any function of the screen alone keeps the mean without bias.
    """
    return np.clip(effects, -at, at)


def bound_of_gain(correlation: float) -> float:
    """Return the largest gain in variance that a correlation allows, 1 / (1 - r^2)."""
    return 1 / (1 - correlation**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class MissRate:
    """The share of what matters that a screen did not choose."""

    share: float
    low: float
    high: float
    """Ends of the exact 95 % interval, of the sampled cells' share."""
    sampled: int
    found: int
    """Sampled cells that belong to the top."""


def miss_rate(chosen: Array, sampled: Array, *, unchosen: int) -> MissRate:
    """Return the share of the exact top K that is not among the K cells which a screen chose.

    `chosen` are the exact effects of its K cells, `sampled` those of a random share of the
    `unchosen` others. A cell is of the top if its effect reaches the K-th largest over all, of
    which each sampled cell stands for unchosen / sampled. The interval is Clopper and Pearson's
    (1934) for the share of the sampled cells. ValueError: no cell was chosen or sampled.
    """
    from scipy.stats import binomtest

    if not chosen.size or not sampled.size:
        raise ValueError("a miss rate needs chosen and sampled cells")
    top, weight = len(chosen), unchosen / len(sampled)
    threshold = _weighted_top(chosen, sampled, weight=weight, top=top)
    found = int(np.count_nonzero(sampled >= threshold))
    interval = binomtest(found, len(sampled)).proportion_ci(1 - 2 * SHARE, method="exact")

    def of_top(share: float) -> float:
        return min(1.0, share * unchosen / top)

    return MissRate(
        share=of_top(found / len(sampled)),
        low=of_top(float(interval.low)),
        high=of_top(float(interval.high)),
        sampled=len(sampled),
        found=found,
    )


def _weighted_top(chosen: Array, sampled: Array, *, weight: float, top: int) -> float:
    """Return the effect of the `top`-th largest cell, where a sampled one counts `weight` times."""
    effects = np.concatenate([chosen, sampled])
    weights = np.concatenate([np.ones(len(chosen)), np.full(len(sampled), weight)])
    order = np.argsort(-effects, kind="stable")
    reached = np.searchsorted(np.cumsum(weights[order]), top - 1e-9)
    return float(effects[order][min(int(reached), len(effects) - 1)])
