"""Peak memory of a trace: by rows, and at fixed rows by components and by steps (flat).

Every figure is a fresh process's: on the CPU its largest resident size (which the opened model and
Python are part of), on a GPU the most that torch allocated. `above` is what the trace adds to a
trace of one component in one step, two rows at a time. Windows are `each`: a map of components by
steps.

    python -m bench.tracing.memory [--rows 4 8 16 32] [--components 8 16 29] [--steps 5 10 20]
"""

import argparse
import resource
import subprocess
import sys
from collections.abc import Sequence

import torch

from bench.models import NAMES, SCORER, make_unit, numerics_of, open_named
from engine.model.scorer import open_scorer
from engine.tracing.trace_unit import trace_unit

ROWS = (4, 8, 16, 32)
COMPONENTS = (8, 16, 29)
STEPS = (5, 10, 20)
MIB = 2**20


def main() -> None:
    """Print three tables, or, in a child process, one figure."""
    options = _options()
    if options.child:
        rows, components, steps = options.child
        print(_peak_bytes(options.model, options.window, rows, components, steps))
        return
    base = _measured(options, rows=2, components=1, steps=1)
    print(
        f"{options.model}, window {options.window}, one component in one step {base:.0f} MiB",
        flush=True,
    )
    fixed, count, steps = options.rows[1], options.components[0], options.steps[0]
    many = max(options.components)
    _print_table(options, base, [(rows, many, steps) for rows in options.rows])
    _print_table(options, base, [(fixed, n, steps) for n in options.components])
    _print_table(options, base, [(fixed, count, t) for t in options.steps])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="emoji-sd", choices=NAMES)
    parser.add_argument("--window", default="each")
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS)
    parser.add_argument("--components", nargs="+", type=int, default=COMPONENTS)
    parser.add_argument("--steps", nargs="+", type=int, default=STEPS)
    parser.add_argument("--child", nargs=3, type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _print_table(
    options: argparse.Namespace, base: float, cases: Sequence[tuple[int, int, int]]
) -> None:
    print("\nrows  components  steps  peak MiB  above MiB")
    for rows, components, steps in cases:
        peak = _measured(options, rows=rows, components=components, steps=steps)
        print(f"{rows:4}  {components:10}  {steps:5}  {peak:8.0f}  {peak - base:9.0f}", flush=True)


def _measured(options: argparse.Namespace, *, rows: int, components: int, steps: int) -> float:
    """Return the peak MiB of a trace in a process of its own."""
    command = [sys.executable, "-m", "bench.tracing.memory", "--model", options.model]
    command += ["--window", options.window, "--child", str(rows), str(components), str(steps)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return int(output.split()[-1]) / MIB


def _peak_bytes(name: str, window: str, rows: int, components: int, steps: int) -> int:
    """Trace in this process and return its peak."""
    model, numerics = open_named(name), numerics_of(name, steps)
    scorer = open_scorer(SCORER)
    unit = make_unit(model, numerics, window=window, components=components)
    trace_unit(model, scorer, unit, numerics=numerics, rows=rows)
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
