"""The share of a trace's time that is the UNet's unavoidable work, and where the rest goes.

    efficiency = necessary row evaluations x best seconds a row / seconds of the trace

A row evaluation is a guided row: two rows of the UNet. Necessary are T for the clean and for the
corrupted run each, and T - start for each patched run, which forks where its window opens. The best
seconds a row are those of plain UNet calls, over batch sizes, before and after the traces in the
same run. The rest is printed as shares of the trace's seconds; they add up with the efficiency to
1. `known rows` are negative: where a row forks, the negative prompt's output is known.

    python -m bench.tracing.efficiency [--rows 24] [--windows all each]
    python -m bench.tracing.efficiency --model sd1-random --steps 3 --components 8 --batches 2 6 10
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import torch

from bench.models import SCORER, add_options, make_unit, open_chosen
from bench.tracing.clock import timed
from bench.tracing.ledger import UNET, Ledger, watched
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
    scorer = open_scorer(SCORER)
    print(
        f"{model.name} on {model.device}, {numerics.steps} steps, guidance {numerics.guidance:g}, "
        f"batches of {options.rows} rows, {torch.get_num_threads()} threads"
    )
    samples: dict[int, list[float]] = defaultdict(list)
    _time_calls(model, numerics, options, samples)
    ledgers = {}
    for window in options.windows:
        unit = make_unit(model, numerics, window=window, components=options.components)
        ledgers[window] = unit, _traced(model, scorer, unit, numerics, options)
        _time_calls(model, numerics, options, samples)
    best_s = _print_calls(samples)
    for window, (unit, ledger) in ledgers.items():
        print(f"\nwindow {window}: {len(unit.components)} components, {ledger.seconds:.2f} s")
        for name, seconds in _account(ledger, unit, numerics, best_s).items():
            print(f"  {name:36} {seconds:8.3f} s  {seconds / ledger.seconds:7.1%}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--rows", type=int, default=24, help="rows of the engine's batches")
    parser.add_argument("--windows", nargs="+", default=["all", "each"])
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="of plain calls")
    parser.add_argument("--calls", type=int, default=5, help="plain calls of each size, each time")
    parser.add_argument(
        "--cpu-time", action="store_true", help="CPU seconds, on a busy machine, with --threads 1"
    )
    parser.add_argument("--repeats", type=int, default=1, help="traces; the fastest counts")
    return parser.parse_args()


@torch.inference_mode()
def _time_calls(
    model: Diffusion,
    numerics: Numerics,
    options: argparse.Namespace,
    samples: dict[int, list[float]],
) -> None:
    """Add the seconds of plain UNet calls of every batch size, the sizes taking turns."""
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


def _print_calls(samples: dict[int, list[float]]) -> float:
    """Print the milliseconds a UNet row by batch size; return the best seconds a guided row."""
    medians = {batch: statistics.median(times) / batch for batch, times in samples.items()}
    print("rows of a plain UNet call  " + "  ".join(f"{batch:6}" for batch in medians))
    print("milliseconds a row         " + "  ".join(f"{1e3 * s:6.2f}" for s in medians.values()))
    return 2 * min(medians.values())


def _traced(
    model: Diffusion,
    scorer: Scorer,
    unit: Unit,
    numerics: Numerics,
    options: argparse.Namespace,
) -> Ledger:
    """Return the ledger of the fastest of the repeated traces."""
    short = numerics.model_copy(update={"steps": 1})
    warm = make_unit(model, short, components=options.components)
    trace_unit(model, scorer, warm, numerics=short, rows=options.rows)
    trace = partial(trace_unit, model, scorer, unit, numerics=numerics, rows=options.rows)
    ledgers = [_trace(model, trace, options) for _ in range(options.repeats)]
    return min(ledgers, key=lambda ledger: ledger.seconds)


def _trace(model: Diffusion, trace: Callable[[], object], options: argparse.Namespace) -> Ledger:
    with watched(model, _now(options)) as ledger:
        ledger.seconds, _ = timed(model.device, trace, _now(options))
    return ledger


def _now(options: argparse.Namespace) -> Callable[[], float]:
    return time.process_time if options.cpu_time else time.perf_counter


def _account(ledger: Ledger, unit: Unit, numerics: Numerics, best_s: float) -> dict[str, float]:
    """Return the seconds of the necessary rows, then those of everything else; the sum is the
    total."""
    steps = numerics.steps
    forked = len(unit.components) * sum(steps - start for start, _ in unit.windows)
    necessary, sources = 2 * steps + forked, ledger.sources / 2
    spans = dict(ledger.spans)
    account = {
        "necessary rows: the efficiency": necessary * best_s,
        "source rows": sources * best_s,
        "rows known where others fork": (ledger.rows / 2 - necessary - sources) * best_s,
        "slower batches": spans.pop(UNET) - ledger.rows / 2 * best_s,
    }
    return account | dict(sorted(spans.items(), key=lambda span: -span[1]))


if __name__ == "__main__":
    main()
