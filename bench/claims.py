"""How often causal states are claimed where there are none, and found where there are some.

Effects are simulated: 70 states that share captions, restored and beside both controls. Of the
null, every state passes two of its three tests and fails one. The rule in use until version 2 of
the statistics, which intersected sets that were each found at 5 %, is computed beside today's.

    python -m bench.claims [--runs 300] [--captions 12 36 72]
"""

import argparse
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from engine.statistics.composite import above_zero_p, composite_p, q_values
from engine.statistics.inference import Array, Draws, draws_of, sign_flip_p
from schemas.intervention import Intervention

STATES = 70
"""As many as Stable Diffusion 1 has components in its UNet."""
CAUSAL = 10
SHIFT = 1.25
"""A true effect, in standard deviations of a caption's effect."""
SHARED = 0.5
"""The part of the variance that all effects of a caption have in common."""
RATE = 0.05

Effects = Mapping[str, Array]
"""Each intervention's caption means, ie_SC."""
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
"""Means of restoring, of another seed's and of another caption's activation, by the test that a
state fails: it restores nothing, nothing that survives another layout, nothing of its own."""
TRUE = (SHIFT, SHIFT, 0)


def simulated(
    generator: np.random.Generator, *, captions: int, causal: int = 0, states: int = STATES
) -> Effects:
    """Return effects of states: the first `causal` pass all tests, each of the others fails one."""
    kinds = list(FAILING.values())
    mean_S3 = np.array([TRUE if n < causal else kinds[n % 3] for n in range(states)])
    shared_1C = np.sqrt(SHARED) * generator.normal(size=(1, captions))
    effects = {}
    for column, name in enumerate(FAILING):
        own_SC = np.sqrt(1 - SHARED) * generator.normal(size=(states, captions))
        effects[name] = mean_S3[:, column, None] + shared_1C + own_SC
    return effects


def tests_of(effects: Effects) -> list[Array]:
    """Return what has to be above zero: restored, the other seed's own, beyond the caption's."""
    return [
        effects[RESTORE], effects[OTHER_SEED], effects[RESTORE] - effects[OTHER_CAPTION],
    ]  # fmt: skip


def old_rule(effects: Effects, draws: Draws) -> NDArray[np.bool_]:
    """Return the states that are discoveries above zero by each test's own q-values."""
    return np.all(
        [(q_values(sign_flip_p(x, draws)) < RATE) & (x.mean(1) > 0) for x in tests_of(effects)],
        axis=0,
    )


def new_rule(effects: Effects, draws: Draws) -> NDArray[np.bool_]:
    """Return the states that are causal by one composite test each."""
    p_S = composite_p([above_zero_p(sign_flip_p(x, draws), x.mean(1)) for x in tests_of(effects)])
    return q_values(p_S) < RATE


Rule = Callable[[Effects, Draws], NDArray[np.bool_]]
RULES: dict[str, Rule] = {"old": old_rule, "new": new_rule}


def names(captions: int) -> tuple[str, ...]:
    """Return ids of made-up captions."""
    return tuple(f"caption {number}" for number in range(captions))


def found_by_rule(*, runs: int, captions: int, causal: int = 0) -> dict[str, NDArray[np.bool_]]:
    """Return, by rule, which states each run reports, is_found_RS."""
    generator, draws = np.random.default_rng(captions), draws_of(names(captions))
    found: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in RULES}
    for _ in range(runs):
        effects = simulated(generator, captions=captions, causal=causal)
        for name, rule in RULES.items():
            found[name].append(rule(effects, draws))
    return {name: np.array(rows) for name, rows in found.items()}


def main() -> None:
    """Print the share of runs that claim a state without any, and the power where some are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--captions", nargs="+", type=int, default=[12, 36, 72])
    options = parser.parse_args()
    print(f"{STATES} states, {options.runs} runs; runs that claim a state though none is causal")
    print("| captions | old rule | new rule | power of the old | of the new | false, old | new |")
    print("|---|---|---|---|---|---|---|")
    for captions in options.captions:
        null = found_by_rule(runs=options.runs, captions=captions)
        some = found_by_rule(runs=options.runs, captions=captions, causal=CAUSAL)
        cells = [f"{null[rule].any(1).mean():.0%}" for rule in RULES]
        cells += [f"{some[rule][:, :CAUSAL].mean():.2f}" for rule in RULES]
        cells += [f"{_false_share(some[rule]):.0%}" for rule in RULES]
        print(f"| {captions} | {' | '.join(cells)} |", flush=True)


def _false_share(found_RS: NDArray[np.bool_]) -> float:
    """Return the false share of what a run reports, on average over runs."""
    return float((found_RS[:, CAUSAL:].sum(1) / np.maximum(found_RS.sum(1), 1)).mean())


if __name__ == "__main__":
    main()
