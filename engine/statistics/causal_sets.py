"""Concentration of effects over components and overlap of causal sets, with intervals.

Shapes: S states, C captions, B resamples, K components (suffixes `_SC`, `_SB`, `_KB`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.statistics.inference import (
    MIN_CAPTIONS,
    RESAMPLES,
    Array,
    Draws,
    Floats,
    blocks,
    percentile_places,
)

Interval = tuple[float, float]
UNKNOWN: Interval = (float("nan"), float("nan"))
Bits = NDArray[np.uint8]
"""Which of RESAMPLES resamples have a state in the causal set, eight a byte, bits_SB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Concentration:
    """Concentration of the positive effects in few components."""

    num_components: int
    gini: float
    gini_interval: Interval
    effective: float
    effective_interval: Interval


def gini(x_KN: Array) -> Array:
    """Return the Gini coefficient of each column: 0 all equal, 1 - 1/K all in one.

    sum_i (2 i - K - 1) x_i / (K sum_i x_i), x ascending. NaN where all are zero.
    """
    components = len(x_KN)
    weights_K = 2 * np.arange(1, components + 1) - components - 1
    with np.errstate(invalid="ignore"):
        return weights_K @ np.sort(x_KN, axis=0) / (components * x_KN.sum(0))


def effective_number(x_KN: Array) -> Array:
    """Return the inverse Simpson index of each column, (sum x)^2 / sum x^2: 1 to K components.

    It is the number of equal components that would be as concentrated (Hill 1973, order 2).
    """
    with np.errstate(invalid="ignore"):
        return x_KN.sum(0) ** 2 / (x_KN**2).sum(0)


def resampled_means(x_SC: Array, draws: Draws) -> Floats:
    """Return each state's mean in RESAMPLES resamples, mean_SB; one of captions it lacks has 0."""
    counts_CB = draws.counts_BC[:RESAMPLES].T.astype(draws.precision)
    has_SC = ~np.isnan(x_SC)
    sums_SB = np.where(has_SC, x_SC, 0).astype(draws.precision) @ counts_CB
    if has_SC.all():
        return sums_SB / x_SC.shape[1]
    sizes_SB = has_SC.astype(draws.precision) @ counts_CB
    return np.divide(sums_SB, sizes_SB, out=np.zeros_like(sums_SB), where=sizes_SB > 0)


def component_totals(
    components: Sequence[str], means: Callable[[slice], Floats], columns: int
) -> Array:
    """Return the sum of the positive means of each component's states, total_KB.

    `components` names each state's; `means` returns the `columns` means of some of the states.
    """
    names, component_S = np.unique(np.asarray(components), return_inverse=True)
    is_of_KS = np.arange(len(names))[:, None] == component_S
    total_KB = np.zeros((len(names), columns))
    for rows in blocks(len(component_S), columns):
        mean_SB = np.maximum(means(rows), 0)
        total_KB += is_of_KS[:, rows].astype(mean_SB.dtype) @ mean_SB
    return total_KB


def concentration(x_SC: Array, components: Sequence[str], draws: Draws) -> Concentration:
    """Return the concentration of components' effects, each the sum of its states' positive
    effects.

    `components` names each state's. Intervals are percentiles over resamples of captions.
    """
    total_KB = component_totals(
        components, lambda rows: resampled_means(x_SC[rows], draws), RESAMPLES
    )
    total_K1 = component_totals(
        components, lambda rows: np.nanmean(x_SC[rows], axis=1, keepdims=True), 1
    )
    is_known = x_SC.shape[1] >= MIN_CAPTIONS
    return Concentration(
        num_components=len(total_KB),
        gini=float(gini(total_K1)[0]),
        gini_interval=percentiles(gini(total_KB)) if is_known else UNKNOWN,
        effective=float(effective_number(total_K1)[0]),
        effective_interval=percentiles(effective_number(total_KB)) if is_known else UNKNOWN,
    )


def resampled_set(x_SC: Array, is_found_S: NDArray[np.bool_], se_S: Array, draws: Draws) -> Bits:
    """Return the resamples in which each state is a discovery.

    A discovery's mean is so many standard errors above zero; the least of these is the threshold
    that the means of a resample are held against. A constant effect has no standard error: it is
    found where it is above zero.
    """
    if not is_found_S.any():
        return np.zeros((len(x_SC), -(-RESAMPLES // 8)), dtype=np.uint8)
    has_spread_S = is_found_S & (se_S > 0)
    mean_S = np.nanmean(x_SC[has_spread_S], axis=1)
    least = (mean_S / se_S[has_spread_S]).min(initial=np.inf)
    with np.errstate(invalid="ignore"):
        threshold_S = np.where(se_S == 0, np.finfo(np.float32).tiny, se_S * least)
    threshold_S1 = np.nan_to_num(threshold_S, nan=np.inf)[:, None]
    bits_SB = [
        np.packbits(resampled_means(x_SC[rows], draws) >= threshold_S1[rows], axis=1)
        for rows in blocks(len(x_SC), RESAMPLES)
    ]
    return np.concatenate(bits_SB)


def jaccard(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return |both| / |either| of two sets of states; NaN if both are empty."""
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else float("nan")


def jaccard_interval(one: Bits, other: Bits, *, estimate: float) -> Interval:
    """Return the percentiles of the overlap of two sets' resamples, over the same states.

    A resample with no state in either set says nothing: it counts as 0 for the lower end and as 1
    for the upper. Resampled sets vary about the sets that were found, so that they overlap less
    than these as a rule: the interval is widened where it leaves out the `estimate`.
    """
    both_B = np.unpackbits(one & other, axis=1, count=RESAMPLES).sum(0, dtype=np.int64)
    either_B = np.unpackbits(one | other, axis=1, count=RESAMPLES).sum(0, dtype=np.int64)
    with np.errstate(invalid="ignore"):
        jaccard_B = both_B / either_B
    low, _ = percentiles(np.nan_to_num(jaccard_B, nan=0.0))
    _, high = percentiles(np.nan_to_num(jaccard_B, nan=1.0))
    return min(low, estimate), max(high, estimate)


def percentiles(values_B: Array) -> Interval:
    """Return the 2.5th and 97.5th percentile over resamples; UNKNOWN if some have no value."""
    if np.isnan(values_B).any():
        return UNKNOWN
    low, high = np.sort(values_B)[list(percentile_places(len(values_B)))]
    return float(low), float(high)
