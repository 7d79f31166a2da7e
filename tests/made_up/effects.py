"""Effects of made-up states without or with causal ones among them, and what each rule finds.

`controlled` states share captions, are restored and have both controls: without causal states every
state passes two of its three tests and fails the third. `skewed` states have a mean of zero, no
control, and rare large effects below zero. The rule of version 1 of the statistics, which
intersected sets that sign flips found test by test at 5 %, is computed for the same effects.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.statistics.composite import AboveZero, above_zero_p, claim_p, q_values
from engine.statistics.inference import Array, draws_of, mean_estimates, sign_flip_p
from schemas.intervention import Intervention
from schemas.statistics import DISCOVERY_RATE

STATES = 70
"""The number of components in Stable Diffusion 1's UNet."""
CAUSAL = 10
SHIFT = 1.25
"""A true effect, in standard deviations of a caption's effect."""
SHARED = 0.5
"""The share of the variance that all effects of a caption have in common."""

Found = NDArray[np.bool_]
Effects = Mapping[str, Array]
"""Each intervention's caption means, ie_SC."""
Skew = Callable[[np.random.Generator, tuple[int, int]], Array]
SKEWS: dict[str, Skew] = {
    "skewness -1": lambda generator, shape: 4 - generator.gamma(4, size=shape),
    "skewness -2": lambda generator, shape: 1 - generator.exponential(size=shape),
    "skewness -2.8": lambda generator, shape: 1 - generator.chisquare(1, size=shape),
    "skewness -6.2": lambda generator, shape: np.exp(0.5) - generator.lognormal(size=shape),
    "20 states -6.2": lambda generator, shape: np.concatenate(
        [
            np.exp(0.5) - generator.lognormal(size=(20, shape[1])),
            generator.normal(size=(shape[0] - 20, shape[1])),
        ]
    ),
}
"""Effects with mean zero of states that have nothing in common."""
RESTORE, OTHER_SEED, OTHER_CAPTION = (
    intervention.value
    for intervention in (
        Intervention.RESTORE, Intervention.OTHER_SEED, Intervention.OTHER_CAPTION,
    )
)  # fmt: skip
FAILING = {
    RESTORE: (0, SHIFT, -SHIFT),
    OTHER_SEED: (SHIFT, 0, 0),
    OTHER_CAPTION: (SHIFT, SHIFT, SHIFT),
}
"""Mean effects of restoring and of both controls, by the test that a state fails: it restores
nothing, or only this layout, or no more than another caption does."""
TRUE = (SHIFT, SHIFT, 0)


def simulated(
    generator: np.random.Generator, *, captions: int, causal: int = 0, states: int = STATES
) -> Effects:
    """Return effects of states: the first `causal` states pass all tests, each other fails one."""
    kinds = list(FAILING.values())
    mean_S3 = np.array([TRUE if n < causal else kinds[n % 3] for n in range(states)])
    shared_1C = np.sqrt(SHARED) * generator.normal(size=(1, captions))
    effects = {}
    for column, name in enumerate(FAILING):
        own_SC = np.sqrt(1 - SHARED) * generator.normal(size=(states, captions))
        effects[name] = mean_S3[:, column, None] + shared_1C + own_SC
    return effects


def tests_of(effects: Effects) -> list[Array]:
    """Return the effects that must be above zero: restored, the other seed's, beyond the
    caption's."""
    return [
        effects[RESTORE], effects[OTHER_SEED], effects[RESTORE] - effects[OTHER_CAPTION],
    ]  # fmt: skip


def old_rule(tests: Sequence[Array], captions: tuple[str, ...]) -> Found:
    """Return the states that are discoveries above zero by each test's own q-values."""
    draws = draws_of(captions)
    passed = [(q_values(sign_flip_p(x, draws)) < DISCOVERY_RATE) & (x.mean(1) > 0) for x in tests]
    return np.all(passed, axis=0)


def new_rule(tests: Sequence[Array], captions: tuple[str, ...]) -> Found:
    """Return the states that are causal by one composite test each."""
    p_S = claim_p([above_zero(x_SC, captions) for x_SC in tests], captions)
    return q_values(p_S) < DISCOVERY_RATE


def above_zero(x_SC: Array, captions: tuple[str, ...]) -> AboveZero:
    """Return the test of means above zero that `jobs.query.estimates` does for a run."""
    draws = draws_of(captions)
    means = mean_estimates(x_SC, draws)
    return AboveZero(
        x_SC=x_SC,
        drawn_p_S=above_zero_p(sign_flip_p(x_SC, draws), means.mean_S, means.above_p_S),
        hall_p_S=means.hall_p_S,
    )


RULES = {"old": old_rule, "new": new_rule}


def names(captions: int) -> tuple[str, ...]:
    """Return ids of made-up captions."""
    return tuple(f"caption {number}" for number in range(captions))


def found_by_rule(
    draw: Callable[[np.random.Generator], Sequence[Array]], *, runs: int, captions: int
) -> dict[str, Found]:
    """Return, by rule, the states that are reported in each of `runs` draws of effects, _RS."""
    generator = np.random.default_rng(captions)
    found: dict[str, list[Found]] = {name: [] for name in RULES}
    for _ in range(runs):
        tests = draw(generator)
        for name, rule in RULES.items():
            found[name].append(rule(tests, names(captions)))
    return {name: np.array(rows) for name, rows in found.items()}


def controlled(*, runs: int, captions: int, causal: int = 0) -> dict[str, Found]:
    """Return the states that the rules find among restored states with both controls."""
    return found_by_rule(
        lambda generator: tests_of(simulated(generator, captions=captions, causal=causal)),
        runs=runs,
        captions=captions,
    )


def skewed(skew: Skew, *, runs: int, captions: int) -> dict[str, Found]:
    """Return the states that the rules find among left-skewed effects with mean zero."""
    return found_by_rule(
        lambda generator: [skew(generator, (STATES, captions))], runs=runs, captions=captions
    )
