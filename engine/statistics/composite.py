"""Claims that a state is above zero by every test it has to pass, at one false discovery rate.

Sets of discoveries that are found test by test and intersected afterwards do not hold their rate:
each set spends its own 5 %, and what one test lets through by chance the others let through by
right. Here every state has one composite test, and the rate is held over these.

Shapes: S states (suffix `_S`); NaN is a state that a test does not apply to.
"""

from collections.abc import Sequence

import numpy as np

from engine.statistics.inference import Array, benjamini_hochberg


def above_zero_p(two_sided_S: Array, mean_S: Array) -> Array:
    """Return the one-sided p-values of "the mean is above zero", p_S, from two-sided ones.

    Sign flips come in pairs, a flip and its negative, so that half of those with a sum as far from
    zero are as far above it.
    """
    return np.where(mean_S > 0, two_sided_S / 2, 1 - two_sided_S / 2)


def composite_p(tests: Sequence[Array]) -> Array:
    """Return each state's largest p-value over its tests, p_S: the intersection-union test.

    That a state passes all of its tests is shown at a level where each shows it at that level
    (Berger 1982). The first test decides for which states there is a claim: NaN there stays NaN,
    while a test that is NaN elsewhere does not apply.
    """
    return np.where(np.isnan(tests[0]), np.nan, np.fmax.reduce(list(tests)))


def q_values(p_S: Array) -> Array:
    """Return the q-values of the states that have a p-value, q_S (Benjamini and Hochberg 1995)."""
    q_S = np.full_like(p_S, np.nan)
    is_known_S = ~np.isnan(p_S)
    q_S[is_known_S] = benjamini_hochberg(p_S[is_known_S])
    return q_S
