"""Profiles of effects over components: held against noise alone, and against another attribute's.

Noise alone is drawn from the run itself: captions' deviations from the means with random signs, all
components of a caption together (the wild bootstrap; Wu 1986, Liu 1988). It has the spread of each
component and what components have in common, and a mean of zero. Permuted components would not do:
they differ in spread, and one of a large spread looks like one that holds the attribute.

Shapes: S states, K components, C captions, B draws (suffixes `_SC`, `_KC`, `_K1`, `_KB`, `_B`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.statistics.causal_sets import (
    UNKNOWN,
    Interval,
    component_totals,
    effective_number,
    percentiles,
)
from engine.statistics.inference import MIN_CAPTIONS, Array, signs_of_noise

TINY = np.finfo(np.float64).tiny
"""Keeps a component without effect or spread from being 0 / 0."""
LEAST_DRAWS = 40
"""With fewer draws a tail of 2.5 % is empty."""
ANGLES = np.linspace(0, np.pi / 2, 31)
"""Proportions of two profiles, as angles: one has no effects at 0, the other at a right angle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseAlone:
    """The shares of the components that noise alone seems to take up."""

    interval: Interval
    """Between which shares 95 % of the draws lie."""
    p_value: float
    """Two-sided p-value of the share found, of the hypothesis that no state has an effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilePair:
    """Whether two attributes have one profile up to its size: the interaction of component and
    attribute."""

    similarity: float
    """Cosine of the angle between the mean profiles."""
    ceiling: float
    """Cosine that two attributes of one profile would have on average, with this noise."""
    p_value: float
    """p-value of the hypothesis that the true profiles are proportional."""


def share_of_noise(
    x_SC: Array, components: Sequence[str], captions: tuple[str, ...], *, share: float
) -> NoiseAlone:
    """Return the effective shares that noise alone gives, and the p-value of `share` among them.

    `components` names each state's; a share is the effective number of components divided by the
    number of components. NaN with fewer than MIN_CAPTIONS captions, without a share, or where the
    effects have no spread.
    """
    if len(captions) < MIN_CAPTIONS or np.isnan(share):
        return NoiseAlone(interval=UNKNOWN, p_value=float("nan"))
    signs_CB = signs_of_noise(captions).T.astype(np.float32)
    y_SC = x_SC - np.nanmean(x_SC, axis=1, keepdims=True)
    sizes_S1 = (~np.isnan(x_SC)).sum(1, keepdims=True)
    y_SC = (np.nan_to_num(y_SC) / sizes_S1).astype(np.float32)
    total_KB = component_totals(components, lambda rows: y_SC[rows] @ signs_CB, signs_CB.shape[1])
    shares_B = effective_number(total_KB) / len(total_KB)
    shares_B = shares_B[~np.isnan(shares_B)]
    if len(shares_B) < LEAST_DRAWS:  # the others have no mean above zero
        return NoiseAlone(interval=UNKNOWN, p_value=float("nan"))
    tail = min(np.count_nonzero(shares_B <= share), np.count_nonzero(shares_B >= share))
    p_value = min(1.0, 2 * (tail + 1) / (len(shares_B) + 1))
    return NoiseAlone(interval=percentiles(shares_B), p_value=p_value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Profile:
    """A mean profile with draws of its noise."""

    mean_K1: Array
    variance_K1: Array
    """Variances of the means."""
    noise_KB: Array
    """Means of noise alone."""
    noise_variance_KB: Array

    def cut(self, kept_K: NDArray[np.bool_]) -> "_Profile":
        """Return the profile of some components."""
        return _Profile(
            mean_K1=self.mean_K1[kept_K],
            variance_K1=self.variance_K1[kept_K],
            noise_KB=self.noise_KB[kept_K],
            noise_variance_KB=self.noise_variance_KB[kept_K],
        )


def compare_profiles(
    one_KC: Array, other_KC: Array, captions: tuple[tuple[str, ...], tuple[str, ...]]
) -> ProfilePair:
    """Return how alike two attributes' profiles are, and the test of their being proportional.

    The statistic is min over angles of sum_K (cos a m1 - sin a m2)^2 / (cos^2 a v1 + sin^2 a v2)
    with means m and their variances v: how far the profiles are from the nearest pair that differs
    in size alone. Its distribution is that of the nearest pair with noise added. An attribute that
    is weaker everywhere, or has no effect, does not differ by this test.

    The ceiling is that of split halves: on average over all splits the product of a half's profile
    with the other's is sum_K (m^2 - v). NaN with fewer than MIN_CAPTIONS captions of either, or
    fewer than two components that have a spread.
    """
    unknown = float("nan")
    if min(map(len, captions)) < MIN_CAPTIONS:
        return ProfilePair(similarity=unknown, ceiling=unknown, p_value=unknown)
    one, other = _profile(one_KC, captions[0]), _profile(other_KC, captions[1])
    has_spread_K = (one.variance_K1 + other.variance_K1 > 0)[:, 0]
    one, other = one.cut(has_spread_K), other.cut(has_spread_K)
    if has_spread_K.sum() < 2:
        return ProfilePair(similarity=unknown, ceiling=unknown, p_value=unknown)
    sizes = np.linalg.norm(one.mean_K1) * np.linalg.norm(other.mean_K1)
    return ProfilePair(
        similarity=float((one.mean_K1 * other.mean_K1).sum() / sizes) if sizes else unknown,
        ceiling=float(np.sqrt(_reliable(one) * _reliable(other)) / sizes) if sizes else unknown,
        p_value=_p_proportional(one, other),
    )


def _profile(x_KC: Array, captions: tuple[str, ...]) -> _Profile:
    count = len(captions)
    mean_K1 = x_KC.mean(1, keepdims=True)
    y_KC = x_KC - mean_K1
    variance_K1 = (y_KC**2).sum(1, keepdims=True) / (count * (count - 1))
    variance_K1[variance_K1 <= 1e-24 * (x_KC**2).max(1, keepdims=True)] = 0  # rounding
    # Deviations from a mean are smaller than those from the true one.
    y_KC *= np.sqrt(count / (count - 1))
    noise_KB = y_KC @ signs_of_noise(captions).T.astype(np.float64) / count
    square_K1 = (y_KC**2).mean(1, keepdims=True)
    return _Profile(
        mean_K1=mean_K1,
        variance_K1=variance_K1,
        noise_KB=noise_KB,
        noise_variance_KB=(square_K1 - noise_KB**2) / (count - 1),
    )


def _reliable(profile: _Profile) -> float:
    """Return the square of a profile's size without noise, 0 where noise is all there is."""
    return max(0.0, float((profile.mean_K1**2 - profile.variance_K1).sum()))


def _p_proportional(one: _Profile, other: _Profile) -> float:
    distances_A1 = _distances(one.mean_K1, one.variance_K1, other.mean_K1, other.variance_K1)
    nearest = int(distances_A1[:, 0].argmin())
    cos, sin = np.cos(ANGLES[nearest]), np.sin(ANGLES[nearest])
    between_K1 = cos * one.mean_K1 - sin * other.mean_K1
    between_K1 /= cos**2 * one.variance_K1 + sin**2 * other.variance_K1 + TINY
    null_one_K1 = one.mean_K1 - cos * one.variance_K1 * between_K1
    null_other_K1 = other.mean_K1 + sin * other.variance_K1 * between_K1
    drawn_B = _distances(
        null_one_K1 + one.noise_KB,
        one.noise_variance_KB,
        null_other_K1 + other.noise_KB,
        other.noise_variance_KB,
    ).min(0)
    hits = np.count_nonzero(drawn_B >= distances_A1[nearest, 0])
    return (hits + 1) / (len(drawn_B) + 1)


def _distances(one_KB: Array, v_one_KB: Array, other_KB: Array, v_other_KB: Array) -> Array:
    """Return the squared distance between two profiles, in standard errors, by angle, _AB."""
    return np.array(
        [
            (
                (np.cos(a) * one_KB - np.sin(a) * other_KB) ** 2
                / (np.cos(a) ** 2 * v_one_KB + np.sin(a) ** 2 * v_other_KB + TINY)
            ).sum(0)
            for a in ANGLES
        ]
    )
