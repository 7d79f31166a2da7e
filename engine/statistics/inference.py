"""Means over captions with their uncertainty: intervals, p-values, tied ranks.

Seeds and draws of one caption are not independent, so that every value here is a caption's mean and
captions are what is drawn. All states of the same captions share one matrix of resamples and one of
signs, so that what is compared is compared on the same draws; both follow from the captions alone.

Shapes: S states, C captions, B resamples, F sign flips, M tests (suffixes `_SC`, `_BC`, `_S`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Floats = NDArray[np.floating]

RESAMPLES = 999
FEW_RESAMPLES, FEW_CAPTIONS = 9999, 20
"""Below this number of captions more resamples are drawn, since means are coarser. Of either number
2.5 % and 97.5 % are places in their order (Davison and Hinkley 1997, 2.4)."""
FLIPS = 9999
MOST_EXACT = 2**13
"""Up to this number of sign flips, of 14 captions, all are enumerated."""
MIN_CAPTIONS = 4
"""With fewer, one resample in nine or more draws one caption alone, which has no spread."""
SHARE = 0.025
"""The share outside either end of a two-sided 95 % interval."""
BLOCK = 2**20
"""Numbers of one block of work."""
ROUNDING = {np.float64: 1e-12, np.float32: 1e-6}
"""Relative differences up to here are rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Resamples and sign flips of a set of captions."""

    counts_BC: NDArray[np.uint8]
    """Times that each resample has each caption."""
    signs_FC: NDArray[np.int8]
    """Signs: every way (the first caption's is +, as a sum and its negative count the same), or
    some drawn ones."""
    is_exact: bool
    """Whether all sign flips are enumerated."""

    @property
    def precision(self) -> type[np.float64] | type[np.float32]:
        """The type of sums over captions: where all flips are counted, ties have to be exact."""
        return np.float64 if self.is_exact else np.float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """Means over captions, one for each state; NaN where a value cannot be known."""

    mean_S: Array
    se_S: Array
    """Standard errors; NaN for a single caption."""
    low_S: Array
    high_S: Array
    """Ends of the 95 % intervals; NaN for a single caption."""
    above_p_S: Array
    """One-sided p-values of "the mean is above zero" by the studentized bootstrap."""
    hall_p_S: Array
    """The same by `hall_p`."""

    @property
    def reaches_zero(self) -> NDArray[np.bool_]:
        """Whether the interval of each state reaches zero; False without one."""
        return (self.low_S <= 0) & (self.high_S >= 0)


@lru_cache(maxsize=4)
def draws_of(captions: tuple[str, ...]) -> Draws:
    """Return the draws of a set of captions, which their ids in the order given determine."""
    digest = sha256("\n".join(captions).encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    count = len(captions)
    resamples = FEW_RESAMPLES if count < FEW_CAPTIONS else RESAMPLES
    counts_BC = some_counts(count, resamples, generator)
    is_exact = 2 ** (count - 1) <= MOST_EXACT
    return Draws(
        counts_BC=counts_BC,
        signs_FC=_all_signs(count) if is_exact else some_signs(count, FLIPS, generator),
        is_exact=is_exact,
    )


def _all_signs(count: int) -> NDArray[np.int8]:
    ways_F1 = np.arange(2 ** (count - 1))[:, None]
    return (1 - 2 * (ways_F1 >> np.arange(count) & 1)[:, ::-1]).astype(np.int8)


def some_signs(count: int, flips: int, generator: np.random.Generator) -> NDArray[np.int8]:
    """Return random signs of each of `count` captions, signs_FC."""
    return 1 - 2 * generator.integers(2, size=(flips, count), dtype=np.int8)


def signs_of_noise(captions: tuple[str, ...]) -> NDArray[np.int8]:
    """Return RESAMPLES random signs of each caption, signs_BC, which follow from their ids."""
    digest = sha256("\n".join(("noise", *captions)).encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    return some_signs(len(captions), RESAMPLES, generator)


def some_counts(count: int, resamples: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return how often each resample has each of `count` captions, counts_BC."""
    drawn_BC = generator.integers(count, size=(resamples, count))
    drawn_BC += count * np.arange(resamples)[:, None]
    counts = np.bincount(drawn_BC.ravel(), minlength=resamples * count)
    return counts.astype(np.uint8).reshape(resamples, count)


def percentile_places(resamples: int) -> tuple[int, int]:
    """Return the places of the 2.5th and 97.5th percentile among sorted resamples, from 0."""
    first = round((resamples + 1) * SHARE)
    return first - 1, resamples - first


def mean_estimates(x_SC: Array, draws: Draws) -> Means:
    """Return the means over captions with their 95 % intervals and tests.

    [m - t_upper s, m - t_lower s] with the mean m, its standard error s and the ends of t. A
    constant effect has no spread: its interval is [m, m].
    """
    mean_S, se_S = x_SC.mean(1), _standard_errors(x_SC)
    t = studentized(x_SC, draws)
    return Means(
        mean_S=mean_S,
        se_S=se_S,
        low_S=mean_S - t.upper_S * se_S,
        high_S=mean_S - t.lower_S * se_S,
        above_p_S=t.above_p_S,
        hall_p_S=hall_p(x_SC),
    )


def _standard_errors(x_SC: Array) -> Array:
    count = x_SC.shape[1]
    if count == 1:
        return np.full(len(x_SC), np.nan)
    spread_S = x_SC.std(1, ddof=1)
    spread_S[spread_S <= ROUNDING[np.float64] * np.abs(x_SC).max(1)] = 0
    return spread_S / np.sqrt(count)


def t_values(x_SC: Array) -> Array:
    """Return means in standard errors, t_S; infinite for a constant effect, 0 for none."""
    mean_S, se_S = x_SC.mean(1), _standard_errors(x_SC)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean_S == 0, 0, mean_S / se_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Studentized:
    """The resampled distribution of t = (m - mu) / s."""

    lower_S: Array
    upper_S: Array
    """Between which t lies at 95 %. NaN where there is no bound, as a resample of one caption alone
    has no spread, and of one caption."""
    above_p_S: Array
    """One-sided p-values of a mean above zero."""


def studentized(x_SC: Array, draws: Draws) -> Studentized:
    """Return the ends of t and the test of a mean of zero or less, which both follow skew.

    The ends are the 2.5th and 97.5th percentile of t* = (m* - m) / s* over resamples (Davison and
    Hinkley 1997, equation 5.6), or Student's, which hold for heavy tails: the wider at each end.
    p is (hits + 1) / (resamples + 1) with the resamples whose t* is no smaller than the t found.
    With fewer than MIN_CAPTIONS captions the ends are Student's alone and p is 1.
    """
    states, count = x_SC.shape
    student = float(stats.t.ppf(1 - SHARE, count - 1)) if count > 1 else np.nan
    ends_S2 = np.tile([-student, student], (states, 1))
    above_p_S = np.ones(states)
    if count >= MIN_CAPTIONS:
        t_S1 = t_values(x_SC)[:, None]
        resamples = len(draws.counts_BC)
        low, high = percentile_places(resamples)
        counts_CB = draws.counts_BC.T.astype(draws.precision)
        for rows in blocks(states, resamples):
            t_SB = t_of_resamples(x_SC[rows], counts_CB)
            above_p_S[rows] = (np.count_nonzero(t_SB >= t_S1[rows], axis=1) + 1) / (resamples + 1)
            t_SB.partition((low, high), axis=1)
            ends_S2[rows, 0] = np.minimum(-student, t_SB[:, low])
            ends_S2[rows, 1] = np.maximum(student, t_SB[:, high])
    ends_S2[np.isinf(ends_S2)] = np.nan
    return Studentized(lower_S=ends_S2[:, 0], upper_S=ends_S2[:, 1], above_p_S=above_p_S)


def hall_p(x_SC: Array) -> Array:
    """Return the one-sided p-values of Student's t, p_S, transformed for skew to the left.

    With r = skewness / sqrt(C): ((1 + r t / 3)^3 - 1) / r + r / 6, which grows with t (Hall 1992).
    Rare large effects below zero make t too large where captions happen to lack them, and then the
    state's own skewness is too small as well: the skewness is the state's or the median of all
    states, whichever lies further to the left. 1 with fewer than MIN_CAPTIONS captions.
    """
    states, count = x_SC.shape
    if count < MIN_CAPTIONS:
        return np.ones(states)
    t_S = t_values(x_SC)
    y_SC = x_SC - x_SC.mean(1, keepdims=True)
    y_SC[_standard_errors(x_SC) == 0] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        r_S = np.nan_to_num((y_SC**3).mean(1) / (y_SC**2).mean(1) ** 1.5 / np.sqrt(count))
        r_S = np.minimum(r_S, np.median(r_S))
        corrected_S = ((1 + r_S * t_S / 3) ** 3 - 1) / r_S + r_S / 6
    is_left_S = np.isfinite(t_S) & (r_S < -ROUNDING[np.float32])
    return stats.t.sf(np.where(is_left_S, corrected_S, t_S), count - 1)


def t_of_resamples(x_SC: Array, counts_CB: Floats) -> Floats:
    """Return t* = (m* - m) / s* of each resample, t_SB; of a constant effect 0."""
    count = x_SC.shape[1]
    y_SC = x_SC - x_SC.mean(1, keepdims=True)
    y_SC[_standard_errors(x_SC) == 0] = 0
    square_S1 = (y_SC**2).mean(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        y_SC /= np.sqrt(square_S1)  # t* has no unit, and single precision a range
    y_SC = np.nan_to_num(y_SC).astype(counts_CB.dtype)
    # One product for both: where a busy machine's cores wait for each other, each one costs.
    t_SB, spread_SB = np.split(np.concatenate([y_SC, y_SC**2]) @ counts_CB, 2)
    t_SB /= count
    spread_SB /= count
    spread_SB -= t_SB**2
    spread_SB[spread_SB <= ROUNDING[counts_CB.dtype.type]] = 0
    spread_SB /= count - 1
    np.sqrt(spread_SB, out=spread_SB)
    with np.errstate(divide="ignore", invalid="ignore"):
        t_SB /= spread_SB
    t_SB[np.isnan(t_SB)] = 0  # no effect at all
    return t_SB


def ratio_interval(x_SC: Array, y_SC: Array, draws: Draws) -> tuple[Array, Array]:
    """Return the interval of mean(x) / mean(y), low_S and high_S, by Fieller's theorem.

    The ratios r at which mean(x - r y) lies within t_lower and t_upper of its standard errors, the
    percentiles of t* for x - r y at the ratio found: the roots of
    (m_x - r m_y)^2 = t^2 (s_xx - 2 r s_xy + r^2 s_yy) (Fieller 1954; Hwang 1995 for the bootstrap).
    Where x is so near r y that few captions differ, these t* are too large for a bound: the ends
    are then those of the linearized ratio, r + t s(x - r y) / m_y (Davison and Hinkley 1997, 2.7).
    NaN where the interval of mean(y) reaches zero.
    """
    mx_S, my_S = x_SC.mean(1), y_SC.mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_S = mx_S / my_S
        residual_SC = np.nan_to_num(x_SC - ratio_S[:, None] * y_SC)
        error_S = _standard_errors(residual_SC) / my_S
    t = studentized(residual_SC, draws)
    is_negative_S = my_S < 0
    at_low_S = np.where(is_negative_S, t.lower_S, t.upper_S)
    at_high_S = np.where(is_negative_S, t.upper_S, t.lower_S)
    low_S = _fieller_root(x_SC, y_SC, at_low_S, -1)
    high_S = _fieller_root(x_SC, y_SC, at_high_S, 1)
    is_bounded_S = ~(np.isnan(low_S) | np.isnan(high_S))
    is_noise_S = _is_noise(y_SC, draws)
    low_S = np.where(is_bounded_S, low_S, ratio_S - at_low_S * error_S)
    high_S = np.where(is_bounded_S, high_S, ratio_S - at_high_S * error_S)
    return np.where(is_noise_S, np.nan, low_S), np.where(is_noise_S, np.nan, high_S)


def _is_noise(y_SC: Array, draws: Draws) -> NDArray[np.bool_]:
    """Return whether the interval of each mean reaches zero; rows that repeat count once."""
    distinct_SC, which_S = np.unique(y_SC, axis=0, return_inverse=True)
    return mean_estimates(distinct_SC, draws).reaches_zero[which_S]


def _fieller_root(x_SC: Array, y_SC: Array, t_S: Array, side: int) -> Array:
    """Return the smaller (side -1) or larger (1) root of Fieller's equation; NaN without bound."""
    mx_S, my_S = x_SC.mean(1), y_SC.mean(1)
    count = x_SC.shape[1]
    dx_SC, dy_SC = x_SC - mx_S[:, None], y_SC - my_S[:, None]
    scale_S = t_S**2 / (count * max(count - 1, 1))
    a_S = my_S**2 - scale_S * (dy_SC**2).sum(1)
    b_S = mx_S * my_S - scale_S * (dx_SC * dy_SC).sum(1)
    c_S = mx_S**2 - scale_S * (dx_SC**2).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        root_S = (b_S + side * np.sqrt(np.maximum(b_S**2 - a_S * c_S, 0))) / a_S
    return np.where(a_S > 0, root_S, np.nan)


def sign_flip_p(x_SC: Array, draws: Draws) -> Array:
    """Return the two-sided p-values of means of zero, p_S, by flipping captions' signs.

    Under the hypothesis that a change does nothing, a caption's effect is as likely its negative:
    p is the share of sign flips whose |sum| is no smaller (Fisher 1935). Exact where all are
    enumerated, (hits + 1) / (flips + 1) otherwise (Phipson and Smyth 2010). The sum orders flips as
    Student's t does, as they leave the sum of squares alone. It is at least 2^(1 - C).
    """
    hits_S, flips = flips_as_far(x_SC, draws.signs_FC, draws.precision), len(draws.signs_FC)
    return hits_S / flips if draws.is_exact else (hits_S + 1) / (flips + 1)


def flips_as_far(
    x_SC: Array, signs_FC: NDArray[np.int8], precision: type[np.float64] | type[np.float32]
) -> Array:
    """Return the number of sign flips whose |sum| is no smaller than the one found, hits_S."""
    floor_S1 = np.abs(x_SC.sum(1, keepdims=True))
    floor_S1 -= ROUNDING[precision] * np.abs(x_SC).sum(1, keepdims=True)
    rounded_SC, floor_S1 = x_SC.astype(precision), floor_S1.astype(precision)
    hits_S = np.zeros(len(x_SC))
    for part in blocks(len(signs_FC), x_SC.shape[1]):
        signs_CF = signs_FC[part].T.astype(precision)
        for rows in blocks(len(x_SC), signs_CF.shape[1]):
            sums_SF = rounded_SC[rows] @ signs_CF
            np.abs(sums_SF, out=sums_SF)
            hits_S[rows] += np.count_nonzero(sums_SF >= floor_S1[rows], axis=1)
    return hits_S


def tied_ranks(low_S: Array, high_S: Array) -> NDArray[np.int64]:
    """Return 1 + the number of states whose interval lies above, rank_S; NaN lies nowhere."""
    lows = np.sort(low_S[~np.isnan(low_S)])
    above_S = len(lows) - np.searchsorted(lows, high_S, side="right")
    return np.where(np.isnan(high_S), 1, 1 + above_S)


def by_captions(x_SC: Array) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield groups of states with the same captions, and these; NaN marks a missing caption."""
    has_SC = ~np.isnan(x_SC)
    if (has_SC == has_SC[:1]).all():  # as in a whole run: nothing to sort
        sets, set_S = has_SC[:1], np.zeros(len(has_SC), np.int64)
    else:
        sets, set_S = np.unique(has_SC, axis=0, return_inverse=True)
    for number, has_C in enumerate(sets):
        if has_C.any():
            yield np.flatnonzero(set_S == number), np.flatnonzero(has_C)


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of rows of about BLOCK numbers each."""
    step = max(1, BLOCK // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, start + step)
