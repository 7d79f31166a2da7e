"""Exact one-sided bounds of a share (Clopper and Pearson 1934), which hold for 0 of few images."""

import math

from scipy.stats import binomtest

from engine.statistics.bootstrap import LEVEL


def upper_bound(count: int, images: int) -> float | None:
    """Return the exact one-sided upper bound of a share; None without images."""
    if not images:
        return None
    interval = binomtest(count, images, alternative="less").proportion_ci(LEVEL, method="exact")
    return float(interval.high)


def lower_bound(count: int, images: int) -> float | None:
    """Return the exact one-sided lower bound of a share; None without images."""
    if not images:
        return None
    interval = binomtest(count, images, alternative="greater").proportion_ci(LEVEL, method="exact")
    return float(interval.low)


def images_needed(limit: float) -> int:
    """Return how many images without the concept show that at most `limit` of them would have it.

    The smallest n with limit >= 1 - 0.05^(1/n); `limit` is between 0 and 1, without the ends.
    """
    return math.ceil(math.log(1 - LEVEL) / math.log1p(-limit))
