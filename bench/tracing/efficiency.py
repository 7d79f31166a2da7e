"""The share of a trace's time that is the denoiser's unavoidable work, and where the rest goes.

    efficiency = necessary row evaluations x best seconds a row / seconds of the trace

A row evaluation is a guided row: two rows of the denoiser. Necessary are T for the clean and for
the corrupted run each, and T - start for each patched run, which forks where its window opens. The
best seconds a row are those of plain calls of the denoiser, over batch sizes. Plain calls and
traces take turns: a pair is both, one after the other, and the median pair's efficiency counts. The
rest is printed as shares of that pair's seconds; they add up with the efficiency to 1. `known rows`
are negative: where a row forks, the negative prompt's output is known.

    python -m bench.tracing.efficiency [--windows all each]
    python -m bench.tracing.efficiency --model sd1-random --steps 3 --components 8 --batches 2 6 10
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from bench.models import SCORER, add_options, add_rows, choose_rows, make_unit, open_chosen
from bench.tracing.clock import timed
from bench.tracing.ledger import DENOISER, Ledger, watched
from engine.model.model import Diffusion
from engine.model.sampling import denoiser_output, encode
from engine.model.scorer import Scorer, open_scorer
from engine.tracing.trace_unit import trace_unit
from schemas.numerics import Numerics
from schemas.unit import Unit

BATCHES = (2, 4, 8, 16, 24, 32, 48, 64, 96)


def main() -> None:
    """Print the plain calls, then one column per window."""
    options = _options()
    model, numerics = open_chosen(options)
    choose_rows(options, model, numerics)
    scorer = open_scorer(SCORER)
    print(
        f"{model.name} on {model.device}, {numerics.steps} steps, guidance {numerics.guidance:g}, "
        f"batches of {options.rows} rows, {torch.get_num_threads()} threads"
    )
    for window in options.windows:
        unit = make_unit(model, numerics, window=window, components=options.components)
        _warm_up(model, scorer, unit, numerics, options)
        pairs = [_pair(model, scorer, unit, numerics, options) for _ in range(options.pairs)]
        _print_pairs(window, unit, numerics, sorted(pairs, key=lambda pair: pair.efficiency))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Plain calls, and a trace after them."""

    row_seconds: dict[int, float]
    """Median seconds of a row by batch size."""
    ledger: Ledger
    necessary: int
    """Guided row evaluations that the trace cannot do without."""

    @property
    def best_s(self) -> float:
        """Seconds of a guided row in the best batch size."""
        return 2 * min(self.row_seconds.values())

    @property
    def efficiency(self) -> float:
        """The necessary evaluations' share of the trace's time."""
        return self.necessary * self.best_s / self.ledger.seconds


def _pair(
    model: Diffusion,
    scorer: Scorer,
    unit: Unit,
    numerics: Numerics,
    options: argparse.Namespace,
) -> Pair:
    row_seconds = _time_calls(model, numerics, options)
    trace = partial(trace_unit, model, scorer, unit, numerics=numerics, rows=options.rows)
    with watched(model, _now(options)) as ledger:
        ledger.seconds, _ = timed(model.device, trace, _now(options))
    steps = numerics.steps
    forked = len(unit.components) * sum(steps - start for start, _ in unit.windows)
    return Pair(row_seconds=row_seconds, ledger=ledger, necessary=2 * steps + forked)


def _warm_up(
    model: Diffusion,
    scorer: Scorer,
    unit: Unit,
    numerics: Numerics,
    options: argparse.Namespace,
) -> None:
    short = numerics.model_copy(update={"steps": 1})
    warm = replace(unit, windows=((0, 1),))
    trace_unit(model, scorer, warm, numerics=short, rows=options.rows)


def _print_pairs(window: str, unit: Unit, numerics: Numerics, pairs: Sequence[Pair]) -> None:
    """Print the efficiency of every pair, which are sorted by it, and the account of the median."""
    pair = pairs[len(pairs) // 2]
    seconds = pair.ledger.seconds
    every = ", ".join(f"{each.efficiency:.1%}" for each in pairs)
    print(f"\nwindow {window}: {len(unit.components)} components, {numerics.steps} steps")
    print(f"efficiency {pair.efficiency:.1%}, the median of {every}; that trace: {seconds:.2f} s")
    print("rows of a plain call  " + "  ".join(f"{batch:6}" for batch in pair.row_seconds))
    print(
        "milliseconds a row    " + "  ".join(f"{1e3 * s:6.2f}" for s in pair.row_seconds.values())
    )
    for name, spent in _account(pair).items():
        print(f"  {name:36} {spent:8.3f} s  {spent / seconds:7.1%}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    add_rows(parser)
    parser.add_argument("--windows", nargs="+", default=["all", "each"])
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="of plain calls")
    parser.add_argument("--calls", type=int, default=5, help="plain calls of each size, each time")
    parser.add_argument(
        "--cpu-time", action="store_true", help="CPU seconds, on a busy machine, with --threads 1"
    )
    parser.add_argument("--pairs", type=int, default=5, help="of plain calls and a trace")
    return parser.parse_args()


@torch.inference_mode()
def _time_calls(
    model: Diffusion, numerics: Numerics, options: argparse.Namespace
) -> dict[int, float]:
    """Return the median seconds of a row of plain calls of every batch size, which take turns."""
    samples: dict[int, list[float]] = defaultdict(list)
    cond = encode(model, ["a photo of an apple"])
    shape = model.latent_shape(height=None, width=None)
    t = torch.tensor(500, device=model.device)
    for turn in range(options.calls + 1):
        for batch in options.batches:
            x = torch.randn((batch, *shape), device=model.device)
            rows = cond.take([0] * batch)
            call = partial(denoiser_output, model, x, t, rows, numerics)
            seconds, _ = timed(model.device, call, _now(options))
            if turn:  # the first warms up
                samples[batch].append(seconds)
    return {batch: statistics.median(times) / batch for batch, times in samples.items()}


def _now(options: argparse.Namespace) -> Callable[[], float]:
    return time.process_time if options.cpu_time else time.perf_counter


def _account(pair: Pair) -> dict[str, float]:
    """Return the seconds of the necessary rows, then those of everything else; the sum is the
    total."""
    ledger, best_s = pair.ledger, pair.best_s
    sources, spans = ledger.sources / 2, dict(ledger.spans)
    account = {
        "necessary rows: the efficiency": pair.necessary * best_s,
        "source rows": sources * best_s,
        "rows known where others fork": (ledger.rows / 2 - pair.necessary - sources) * best_s,
        "slower batches": spans.pop(DENOISER) - ledger.rows / 2 * best_s,
    }
    return account | dict(sorted(spans.items(), key=lambda span: -span[1]))


if __name__ == "__main__":
    main()
