"""A simulated run of 10^8 scores on 4,000 GPUs: the cost of losses, chunks, the tail and the
driver.

What `bench.scale` measures is `MEASURED`, what nobody has measured here is `ASSUMED`; both can be
given. `lost` is the share of the GPUs' time, while they are there, that goes to anything but work
that counts; `behind` the longest that an answer waited for the driver, `parts` the most at once.

    python -m bench.scale.simulate [--gpus 4000] [--scores 100000000] [--unit-s 60]
"""

import argparse
import logging
import statistics
from collections.abc import Callable
from dataclasses import replace

from bench.scale.events import Case, Simulation

SCORES_A_UNIT = 140
"""70 components x 2 measures: one slab of SD 1's components, restored at all steps."""
MEASURED = {"turn_s": 0.008, "call_s": 0.0008}
"""Seconds of the driver each time it looks through 8,000 calls in flight, and for each answer."""
ASSUMED = {
    "unit_s": 60.0,
    "fastest": 2.0,
    "lost_every_h": 4.0,
    "return_s": 300.0,
    "load_s": 40.0,
    "notice_s": 10.0,
    "commit_s": 0.15,
    "pack_s": 30.0,
}
"""A unit is 72 rows x 50 guided steps of SD 1, 7,200 evaluations of the UNet: a minute at 120 a
second, what an A100-class GPU does in half precision. A commit in a bucket is two questions and one
put of 50 ms; a pack is 256 gets, a put and 256 deletes of 50 ms, one after the other."""
CHUNKS = (1, 2, 8, 64)
LOST_EVERY_H = (2.0, 4.0, 12.0)
UNIT_S = (5.0, 20.0, 60.0, 120.0)
FASTEST = (1.0, 2.0, 4.0)
HEADER = (
    "units/chunk  s/unit  lost every speeds         |  hours  calls/s  driver  behind s |   lost  "
    "cut off  loading   copies  waiting  commit+pack | tail min   parts"
)


def main() -> None:
    """Print one table per question."""
    logging.getLogger("jobs").setLevel(logging.ERROR)  # every loss is a warning
    options = _options()
    units = options.scores // SCORES_A_UNIT
    print(f"{options.scores:,} scores, {units:,} units, {options.gpus:,} GPUs")
    print({name: getattr(options, name) for name in (*MEASURED, *ASSUMED)})
    base = _case(options, units, chunk_units=2)
    stragglers = options.gpus // 100
    _table("Losses by units a chunk", options.seeds, [
        _case(options, units, chunk_units=size, lost_every_h=hours)
        for hours in LOST_EVERY_H for size in CHUNKS
    ])  # fmt: skip
    _table("Seconds a unit", options.seeds, [replace(base, unit_s=seconds) for seconds in UNIT_S])
    _table("Without copies at the end, and with them, by speeds", options.seeds, [
        replace(base, fastest=fastest, has_copies=has_copies)
        for fastest in FASTEST for has_copies in (False, True)
    ])  # fmt: skip
    _table(f"The same with {stragglers} GPUs of a tenth of the speed", options.seeds, [
        replace(base, stragglers=stragglers, has_copies=has_copies)
        for has_copies in (False, True)
    ])  # fmt: skip
    _table("Where one driver is full: one unit a chunk, ever shorter", options.seeds, [
        replace(_case(options, units, chunk_units=1), unit_s=seconds)
        for seconds in (20.0, 5.0, 2.5, 1.25)
    ])  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, default=4000)
    parser.add_argument("--scores", type=int, default=10**8)
    parser.add_argument("--seeds", type=int, default=3, help="runs that a line is the mean of")
    for name, value in (MEASURED | ASSUMED).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value)
    return parser.parse_args()


def _case(
    options: argparse.Namespace, units: int, *, chunk_units: int, lost_every_h: float | None = None
) -> Case:
    assumed = {name: getattr(options, name) for name in (*MEASURED, *ASSUMED)}
    if lost_every_h:
        assumed["lost_every_h"] = lost_every_h
    return Case(
        gpus=options.gpus, chunks=-(-units // chunk_units), chunk_units=chunk_units, **assumed
    )


def _table(title: str, seeds: int, cases: list[Case]) -> None:
    print(f"\n{title}\n{HEADER}", flush=True)
    for case in cases:
        print(_line(case, [Simulation(case, seed).run() for seed in range(seeds)]), flush=True)


def _line(case: Case, ends: list[Simulation]) -> str:
    def average(value: Callable[[Simulation], float]) -> float:
        return statistics.mean(map(value, ends))

    def share(*names: str) -> float:
        return average(lambda end: sum(end.spent[name] for name in names) / sum(end.spent.values()))

    copies = "" if case.has_copies else " no copies"
    return (
        f"{case.chunk_units:11} {case.unit_s:7} {case.lost_every_h:9} h 1..{case.fastest:.0f}"
        f"{copies:11}| {average(lambda end: end.now / 3600):6.2f} "
        f"{average(lambda end: case.chunks / end.now):8.1f} "
        f"{average(lambda end: end.driver_s / end.now):7.0%} "
        f"{average(lambda end: end.driver_behind_s):9.1f} | {1 - share('work'):6.1%} "
        + " ".join(f"{share(name):8.2%}" for name in ("cut off", "loading", "copies", "waiting"))
        + f" {share('committing', 'packing'):12.2%} | "
        f"{average(lambda end: (end.now - end.handed_out_s) / 60):7.1f} "
        f"{average(lambda end: end.most_parts):7,.0f}"
    )


if __name__ == "__main__":
    main()
