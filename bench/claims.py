"""The rate at which the rules claim causal states where there are none, and where there are some.

Effects of 70 states are simulated, as `tests.made_up.effects` says.

    python -m bench.claims [--runs 300] [--captions 12 36 72]
"""

import argparse

import numpy as np

from tests.made_up.effects import CAUSAL, RULES, SKEWS, STATES, Found, controlled, skewed


def main() -> None:
    """Print the share of runs with a false claim, and the power where states are causal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--captions", nargs="+", type=int, default=[12, 20, 36, 72])
    options = parser.parse_args()
    print(f"{STATES} states, {options.runs} runs")
    print(
        "\n| captions | false claim, old rule | new | power, old | new | false share, old | new |"
    )
    print("|---|---|---|---|---|---|---|")
    for captions in options.captions:
        null = controlled(runs=options.runs, captions=captions)
        some = controlled(runs=options.runs, captions=captions, causal=CAUSAL)
        cells = [f"{null[rule].any(1).mean():.0%}" for rule in RULES]
        cells += [f"{some[rule][:, :CAUSAL].mean():.2f}" for rule in RULES]
        cells += [f"{_false_share(some[rule]):.0%}" for rule in RULES]
        print(f"| {captions} | {' | '.join(cells)} |", flush=True)
    heads = [f"{name}, {rule}" for name in SKEWS for rule in RULES]
    print(f"\n| captions | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for captions in options.captions:
        found = [skewed(skew, runs=options.runs, captions=captions) for skew in SKEWS.values()]
        cells = [f"{rules[rule].any(1).mean():.0%}" for rules in found for rule in RULES]
        print(f"| {captions} | {' | '.join(cells)} |", flush=True)


def _false_share(found_RS: Found) -> float:
    """Return the false share of a run's reported states, on average over runs."""
    return float((found_RS[:, CAUSAL:].sum(1) / np.maximum(found_RS.sum(1), 1)).mean())


if __name__ == "__main__":
    main()
