"""Means over captions with their uncertainty: intervals, p-values, q-values, tied ranks.

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

Array = NDArray[np.float64]
Floats = NDArray[np.floating]

RESAMPLES = 999
"""So many that 2.5 % and 97.5 % are places in their order (Davison and Hinkley 1997, 2.4)."""
LOWER, UPPER = (RESAMPLES + 1) // 40 - 1, (RESAMPLES + 1) * 39 // 40 - 1
"""The places of the 2.5th and 97.5th percentile among sorted resamples, from 0."""
FLIPS = 9999
MOST_EXACT = 2**13
"""Sign flips are all enumerated up to so many: up to 14 captions."""
MIN_CAPTIONS = 4
"""With fewer, one resample in nine or more draws one caption alone, which has no spread."""
LEVEL = 0.975
"""The share below the upper end of a two-sided 95 % interval."""
BLOCK = 2**20
"""Numbers of one block of work."""
ROUNDING = {np.float64: 1e-12, np.float32: 1e-6}
"""Relative differences up to here are rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """What is drawn of a set of captions."""

    counts_BC: NDArray[np.uint8]
    """How often each resample has each caption."""
    signs_FC: NDArray[np.int8]
    """Signs: every way (the first caption's is +, as a sum and its negative count the same), or
    some drawn ones."""
    is_exact: bool
    """Whether every way is there."""

    @property
    def precision(self) -> type[np.float64] | type[np.float32]:
        """What sums over captions are taken in: where ways are counted ties have to be exact."""
        return np.float64 if self.is_exact else np.float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """Means over captions, one each state; NaN is what cannot be known."""

    mean_S: Array
    se_S: Array
    """Standard errors; of one caption NaN."""
    low_S: Array
    high_S: Array
    """Ends of the 95 % intervals; of one caption NaN."""


@lru_cache(maxsize=4)
def draws_of(captions: tuple[str, ...]) -> Draws:
    """Return the draws of a set of captions, which their ids in the order given determine."""
    digest = sha256("\n".join(captions).encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    count = len(captions)
    counts_BC = np.zeros((RESAMPLES, count), dtype=np.uint8)
    for counts_C in counts_BC:
        counts_C += np.bincount(generator.integers(count, size=count), minlength=count).astype(
            np.uint8
        )
    is_exact = 2 ** (count - 1) <= MOST_EXACT
    return Draws(
        counts_BC=counts_BC,
        signs_FC=_all_signs(count) if is_exact else _some_signs(count, generator),
        is_exact=is_exact,
    )


def _all_signs(count: int) -> NDArray[np.int8]:
    ways_F1 = np.arange(2 ** (count - 1))[:, None]
    return (1 - 2 * (ways_F1 >> np.arange(count) & 1)[:, ::-1]).astype(np.int8)


def _some_signs(count: int, generator: np.random.Generator) -> NDArray[np.int8]:
    return 1 - 2 * generator.integers(2, size=(FLIPS, count), dtype=np.int8)


def mean_estimates(x_SC: Array, draws: Draws) -> Means:
    """Return the means over captions with their 95 % intervals.

    [m - t_upper s, m - t_lower s] with the mean m, its standard error s and `t_ends`.
    """
    mean_S, se_S = x_SC.mean(1), _standard_errors(x_SC)
    lower_S, upper_S = t_ends(x_SC, draws)
    return Means(
        mean_S=mean_S, se_S=se_S, low_S=mean_S - upper_S * se_S, high_S=mean_S - lower_S * se_S
    )


def _standard_errors(x_SC: Array) -> Array:
    count = x_SC.shape[1]
    if count == 1:
        return np.full(len(x_SC), np.nan)
    return x_SC.std(1, ddof=1) / np.sqrt(count)


def t_ends(x_SC: Array, draws: Draws) -> tuple[Array, Array]:
    """Return between which t = (m - mu) / s lies at 95 %, lower_S and upper_S.

    The 2.5th and 97.5th percentile of t* = (m* - m) / s* over resamples (Davison and Hinkley 1997,
    equation 5.6), which follow skew, or Student's, which hold for heavy tails: the wider at each
    end. Student's alone with fewer than MIN_CAPTIONS captions. An end is NaN where it has no bound,
    as a resample of one caption alone has no spread, and of one caption.
    """
    states, count = x_SC.shape
    student = student_quantile(count - 1) if count > 1 else np.nan
    ends_S2 = np.tile([-student, student], (states, 1))
    if count >= MIN_CAPTIONS:
        counts_CB = draws.counts_BC.T.astype(draws.precision)
        for rows in blocks(states, RESAMPLES):
            t_SB = _t_of_resamples(x_SC[rows], counts_CB)
            t_SB.partition((LOWER, UPPER), axis=1)
            ends_S2[rows, 0] = np.minimum(-student, t_SB[:, LOWER])
            ends_S2[rows, 1] = np.maximum(student, t_SB[:, UPPER])
    ends_S2[np.isinf(ends_S2)] = np.nan
    return ends_S2[:, 0], ends_S2[:, 1]


@lru_cache
def student_quantile(freedom: int) -> float:
    """Return the 97.5th percentile of Student's t by summing its density.

    With t = sqrt(freedom) tan(a) the density of the angle a is proportional to
    cos(a)^(freedom - 1).
    """
    width = np.pi / 2 if freedom < 1000 else 20 / np.sqrt(freedom)
    angles = np.linspace(0, width, 100_001)
    mass = np.cumsum(np.cos(angles) ** (freedom - 1))
    mass -= (mass[0] + np.cos(angles) ** (freedom - 1)) / 2  # the trapezoid rule
    angle = np.interp(2 * LEVEL - 1, mass / mass[-1], angles)
    return float(np.sqrt(freedom) * np.tan(angle))


def _t_of_resamples(x_SC: Array, counts_CB: Floats) -> Floats:
    count = x_SC.shape[1]
    y_SC = x_SC - x_SC.mean(1, keepdims=True)
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
    NaN where no interval is bounded, which is where the interval of mean(y) reaches zero.
    """
    mx_S, my_S = x_SC.mean(1), y_SC.mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        residual_SC = x_SC - (mx_S / my_S)[:, None] * y_SC
    lower_S, upper_S = t_ends(np.nan_to_num(residual_SC), draws)
    is_negative_S = my_S < 0
    at_low_S = np.where(is_negative_S, lower_S, upper_S)
    at_high_S = np.where(is_negative_S, upper_S, lower_S)
    low_S, high_S = (
        _fieller_root(x_SC, y_SC, t_S, side) for t_S, side in ((at_low_S, -1), (at_high_S, 1))
    )
    is_bounded_S = ~(np.isnan(low_S) | np.isnan(high_S))
    return np.where(is_bounded_S, low_S, np.nan), np.where(is_bounded_S, high_S, np.nan)


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
    floor_S1 = np.abs(x_SC.sum(1, keepdims=True))
    floor_S1 -= ROUNDING[draws.precision] * np.abs(x_SC).sum(1, keepdims=True)
    rounded_SC, floor_S1 = x_SC.astype(draws.precision), floor_S1.astype(draws.precision)
    hits_S = np.zeros(len(x_SC))
    flips = len(draws.signs_FC)
    for part in blocks(flips, x_SC.shape[1]):
        signs_CF = draws.signs_FC[part].T.astype(draws.precision)
        for rows in blocks(len(x_SC), signs_CF.shape[1]):
            sums_SF = rounded_SC[rows] @ signs_CF
            np.abs(sums_SF, out=sums_SF)
            hits_S[rows] += np.count_nonzero(sums_SF >= floor_S1[rows], axis=1)
    return hits_S / flips if draws.is_exact else (hits_S + 1) / (flips + 1)


def benjamini_hochberg(p_M: Array) -> Array:
    """Return the q-values of tests, q_M: the false discovery rate at which each is a discovery.

    q of the i-th smallest is the least M p_j / j over j >= i; equal p have equal q (Benjamini and
    Hochberg 1995). The rate holds for independent tests and positively dependent ones.
    """
    order_M = np.argsort(p_M)
    raised_M = p_M[order_M] * len(p_M) / np.arange(1, len(p_M) + 1)
    q_M = np.empty_like(p_M)
    q_M[order_M] = np.minimum(np.minimum.accumulate(raised_M[::-1])[::-1], 1)
    return q_M


def tied_ranks(low_S: Array, high_S: Array) -> NDArray[np.int64]:
    """Return 1 + the number of states whose interval lies above, rank_S; NaN lies nowhere."""
    lows = np.sort(low_S[~np.isnan(low_S)])
    above_S = len(lows) - np.searchsorted(lows, high_S, side="right")
    return np.where(np.isnan(high_S), 1, 1 + above_S)


def by_captions(x_SC: Array) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the states that have the same captions, and these; NaN is what a state lacks."""
    has_SC = ~np.isnan(x_SC)
    if (has_SC == has_SC[:1]).all():  # as in a whole run: nothing to sort
        sets, set_S = has_SC[:1], np.zeros(len(has_SC), np.int64)
    else:
        sets, set_S = np.unique(has_SC, axis=0, return_inverse=True)
    for number, has_C in enumerate(sets):
        if has_C.any():
            yield np.flatnonzero(set_S == number), np.flatnonzero(has_C)


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of rows that have some BLOCK numbers each."""
    step = max(1, BLOCK // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, start + step)
