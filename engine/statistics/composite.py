"""Claims that a state passes every test for an effect above zero, at one false discovery rate.

Sets of discoveries that are found test by test and intersected afterward do not hold their rate:
each set spends its own 5 %, and a state that one test lets through by chance passes the others
because it is truly above zero there. Here every state has one composite test, and the rate is held
over these.

Shapes: S states, T tests, C captions, R rows to be tested (suffixes `_TS`, `_SC`, `_RC`, `_S`); NaN
is a state that a test does not apply to.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from engine.statistics.inference import (
    BLOCK,
    FLIPS,
    MIN_CAPTIONS,
    Array,
    by_captions,
    draws_of,
    flips_as_far,
    sign_flip_p,
    some_counts,
    some_signs,
    t_of_resamples,
    t_values,
)
from schemas.statistics import DISCOVERY_RATE

HITS = 10
"""Hits after which a p-value is known well enough (Besag and Clifford 1991)."""
RESOLUTION = 4
"""Drawing continues until the smallest p-value is this factor below what a lone discovery needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AboveZero:
    """One test of "the mean is above zero", which a state has to pass; NaN where it lacks one."""

    x_SC: Array
    drawn_p_S: Array
    """p-values of sign flips and the studentized bootstrap, by a first number of draws."""
    hall_p_S: Array
    """p-values of `hall_p`, which draws nothing."""


def above_zero_p(two_sided_S: Array, mean_S: Array, above_p_S: Array) -> Array:
    """Return the p-values of "the mean is above zero" by both kinds of draws, the larger, p_S.

    `two_sided_S` are those of sign flips, which come in pairs, a flip and its negative, so that
    half of the sums that are as far from zero are as far above it; `above_p_S` the bootstrap's.
    """
    flips_S = np.where(mean_S > 0, two_sided_S / 2, 1 - two_sided_S / 2)
    return np.maximum(flips_S, above_p_S)


def q_values(p_S: Array) -> Array:
    """Return the q-values of the states that have a p-value, q_S (Benjamini and Hochberg 1995)."""
    q_S = np.full_like(p_S, np.nan)
    is_known_S = ~np.isnan(p_S)
    q_S[is_known_S] = stats.false_discovery_control(p_S[is_known_S])
    return q_S


def claim_p(tests: Sequence[AboveZero], captions: Sequence[str]) -> Array:
    """Return the p-value of the claim that a state passes all of its tests, p_S.

    It is the largest of the tests' (the intersection-union test; Berger 1982). The first test
    decides for which states there is a claim: NaN there stays NaN, while a test that is NaN
    elsewhere does not apply.

    Draws grow tenfold, up to what a lone discovery among so many claims needs, for the states still
    in play: those of fewer than HITS hits that are not discoveries yet.
    """
    hall_p_TS = np.array([test.hall_p_S for test in tests])
    p_TS = np.maximum([test.drawn_p_S for test in tests], hall_p_TS)
    p_S = _largest(p_TS)
    last = int(np.ceil(RESOLUTION * np.count_nonzero(~np.isnan(p_S)) / DISCOVERY_RATE))
    draws = len(draws_of(tuple(captions)).counts_BC)
    while draws < last:
        is_open_S = (q_values(p_S) >= DISCOVERY_RATE) & (p_S * (draws + 1) < HITS)
        if not is_open_S.any():
            break
        draws = min(10 * draws + 9, last)
        is_open_TS = is_open_S & ~np.isnan(p_TS)
        x_RC = np.concatenate([t.x_SC[rows] for t, rows in zip(tests, is_open_TS, strict=True)])
        p_TS[is_open_TS] = np.maximum(drawn_p(x_RC, captions, draws), hall_p_TS[is_open_TS])
        p_S = _largest(p_TS)
    return p_S


def _largest(p_TS: Array) -> Array:
    return np.where(np.isnan(p_TS[0]), np.nan, np.fmax.reduce(p_TS))


def drawn_p(x_RC: Array, captions: Sequence[str], draws: int) -> Array:
    """Return the p-values of means above zero, p_R, by `draws` flips and resamples.

    1 for a row of fewer than MIN_CAPTIONS captions.
    """
    p_R = np.ones(len(x_RC))
    for rows, columns in by_captions(x_RC):
        if len(columns) >= MIN_CAPTIONS:
            ids = tuple(str(captions[int(column)]) for column in columns)
            p_R[rows] = _drawn_p(x_RC[np.ix_(rows, columns)], ids, draws)
    return p_R


def _drawn_p(x_RC: Array, ids: tuple[str, ...], draws: int) -> Array:
    first = draws_of(ids)
    flips_more = not first.is_exact and draws > FLIPS
    t_R1, far_R, above_R = t_values(x_RC)[:, None], np.zeros(len(x_RC)), np.zeros(len(x_RC))
    for counts_BC, signs_BC in _more_draws(ids, draws, rows=len(x_RC)):
        t_RB = t_of_resamples(x_RC, counts_BC.T.astype(first.precision))
        above_R += np.count_nonzero(t_RB >= t_R1, axis=1)
        if flips_more:
            far_R += flips_as_far(x_RC, signs_BC, first.precision)
    two_sided_R = (far_R + 1) / (draws + 1) if flips_more else sign_flip_p(x_RC, first)
    return above_zero_p(two_sided_R, x_RC.mean(1), (above_R + 1) / (draws + 1))


def _more_draws(
    ids: tuple[str, ...], draws: int, *, rows: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int8]]]:
    """Yield blocks of resamples and signs that follow from the captions, `draws` of them in all."""
    digest = sha256("\n".join(("more", *ids)).encode()).digest()
    counting, signing = np.random.default_rng(int.from_bytes(digest[:16], "big")).spawn(2)
    step = max(1, BLOCK // max(len(ids), rows))
    for start in range(0, draws, step):
        size = min(step, draws - start)
        yield some_counts(len(ids), size, counting), some_signs(len(ids), size, signing)
