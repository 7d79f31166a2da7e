"""Intervals of shares and means by a bootstrap over clusters: names are drawn, not their images.

Images of one name are alike, so that drawing images would give too narrow intervals. Each resample
draws as many clusters as there are, with replacement, and the measure is taken of what it drew; the
interval is from the 2.5th to the 97.5th percentile (Efron and Tibshirani 1993, chapter 13).

Shapes: B resamples, C clusters, K sums of a cluster (suffixes `_CK`, `_BK`, `_B`).
"""

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
PERCENTILES = (2.5, 97.5)

Interval = tuple[float, float]
Array = NDArray[np.float64]


def resampled(sums_CK: Array, generator: np.random.Generator) -> Array:
    """Return the sums over the clusters that each resample draws, sums_BK."""
    clusters = len(sums_CK)
    drawn_BC = generator.multinomial(clusters, [1 / clusters] * clusters, size=RESAMPLES)
    return drawn_BC @ sums_CK


def ratio_interval(sums_CK: Array, generator: np.random.Generator) -> Interval | None:
    """Return the interval of sum(first column) / sum(second column); None for a single cluster.

    Clusters whose second column is 0 have nothing to say and are left out.
    """
    share_B = _shares(sums_CK, generator)
    return None if share_B is None else interval(share_B)


def harmonic_mean(erased: Array | float, kept: Array | float) -> Array:
    """Return 2 (1 - erased) kept / (1 - erased + kept), 0 where both are 0 (MACE; SPEED)."""
    gone = 1.0 - np.asarray(erased, dtype=np.float64)
    kept = np.asarray(kept, dtype=np.float64)
    total = gone + kept
    return np.divide(2 * gone * kept, total, out=np.zeros_like(total), where=total > 0)


def harmonic_interval(
    erased_CK: Array, kept_CK: Array, generator: np.random.Generator
) -> Interval | None:
    """Return the interval of the harmonic mean; both sides are drawn, each from its own clusters.

    None where either has a single cluster.
    """
    erased_B, kept_B = _shares(erased_CK, generator), _shares(kept_CK, generator)
    if erased_B is None or kept_B is None:
        return None
    return interval(harmonic_mean(erased_B, kept_B))


def _shares(sums_CK: Array, generator: np.random.Generator) -> Array | None:
    """Return the quotient of two columns' sums in each resample; None for a single cluster."""
    counted_CK = sums_CK[sums_CK[:, 1] > 0]
    if len(counted_CK) < 2:
        return None
    top_B, bottom_B = resampled(counted_CK, generator).T
    return top_B / bottom_B


def interval(values_B: Array) -> Interval:
    """Return the percentiles of resampled values."""
    low, high = np.percentile(values_B, PERCENTILES)
    return float(low), float(high)
