"""Intervals of shares and means by a bootstrap over clusters, which are names, not images.

Images of one name are alike, so that drawing images would give too narrow intervals. Each resample
draws as many clusters as there are, with replacement, and the measure is taken of what it drew; the
interval is from the 2.5th to the 97.5th percentile (Efron and Tibshirani 1993, chapter 13).

Shapes: B resamples, C clusters (suffixes `_C2`, `_BC`, `_B`).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 2000
LEVEL = 0.95

Interval = tuple[float, float]
Array = NDArray[np.float64]


def ratio_interval(sums_C2: Array, generator: np.random.Generator) -> Interval | None:
    """Return the interval of sum(first column) / sum(second column); None for a single cluster.

    Clusters whose second column is 0 are left out.
    """
    return _interval([sums_C2], lambda share_B: share_B, generator)


def harmonic_mean(still_recognised: Array | float, kept: Array | float) -> Array:
    """Return the harmonic mean of 1 - `still_recognised` and `kept`, 0 where both are 0.

    MACE (Lu et al. 2024) and SPEED (Li et al. 2026) compare edits by it.
    """
    gone = 1.0 - np.asarray(still_recognised, dtype=np.float64)
    kept = np.asarray(kept, dtype=np.float64)
    total = gone + kept
    return np.divide(2 * gone * kept, total, out=np.zeros_like(total), where=total > 0)


def harmonic_interval(
    erased_C2: Array, kept_C2: Array, generator: np.random.Generator
) -> Interval | None:
    """Return the interval of the harmonic mean; both sides are drawn, each from its own clusters.

    None where either has a single cluster.
    """
    return _interval([erased_C2, kept_C2], harmonic_mean, generator)


def _interval(
    sides: list[Array], measure: Callable[..., Array], generator: np.random.Generator
) -> Interval | None:
    """Return the interval of a measure of each side's share; None if one has a single cluster."""
    counted = [sums_C2[sums_C2[:, 1] > 0] for sums_C2 in sides]
    if min(map(len, counted)) < 2:
        return None

    def resampled(*drawn_BC: NDArray[np.int64], axis: int) -> Array:
        # `axis` counts from the end, where a cluster's two sums come after its row.
        sums = [side[rows].sum(axis - 1) for side, rows in zip(counted, drawn_BC, strict=True)]
        return measure(*(sums_B2[..., 0] / sums_B2[..., 1] for sums_B2 in sums))

    low, high = stats.bootstrap(
        [np.arange(len(side)) for side in counted],
        resampled,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=generator,
    ).confidence_interval
    return float(low), float(high)
