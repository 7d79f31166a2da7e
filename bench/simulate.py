"""A run of 10^8 scores on 4,000 GPUs, simulated: what losses, chunks, the tail and the driver cost.

What `bench.scale` measures is `MEASURED`, what nobody has measured here is `ASSUMED`; both can be
given. `lost` is the share of the GPUs' time, while they are there, that goes to anything but work
that counts.

    python -m bench.simulate [--gpus 4000] [--scores 100000000] [--unit-s 60]
"""

import argparse
import time
from dataclasses import replace

from bench.cluster_events import Case, Simulation

SCORES_A_UNIT = 140
"""70 components x 2 measures: one slab of SD 1's components, restored at all steps."""
MEASURED = {"turn_s": 0.0083, "call_s": 0.0006}
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
    "units/chunk  s/unit  lost every  speeds  |  hours  calls/s  driver  behind s  | lost    "
    "cut off  loading  copies  waiting  commit+pack  |  tail min  parts"
)


def main() -> None:
    """Print a table a question."""
    options = _options()
    units = options.scores // SCORES_A_UNIT
    print(f"{options.scores:,} scores, {units:,} units, {options.gpus:,} GPUs")
    print({name: getattr(options, name) for name in (*MEASURED, *ASSUMED)})
    base = _case(options, units, chunk_units=2)
    _table("Losses by units a chunk", [
        _case(options, units, chunk_units=size, lost_every_h=hours)
        for hours in LOST_EVERY_H for size in CHUNKS
    ])  # fmt: skip
    _table("Seconds a unit", [replace(base, unit_s=seconds) for seconds in UNIT_S])
    _table("Without copies at the end, and with them, by speeds", [
        replace(_case(options, units, chunk_units=size), fastest=fastest, has_copies=has_copies)
        for size in (2, 8) for fastest in FASTEST for has_copies in (False, True)
    ])  # fmt: skip
    _table("Where one driver is full: one unit a chunk, ever shorter", [
        replace(_case(options, units, chunk_units=1), unit_s=seconds)
        for seconds in (20.0, 5.0, 2.5, 1.25)
    ])  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, default=4000)
    parser.add_argument("--scores", type=int, default=10**8)
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


def _table(title: str, cases: list[Case]) -> None:
    print(f"\n{title}\n{HEADER}", flush=True)
    for case in cases:
        start = time.perf_counter()
        end = Simulation(case).run()
        print(_line(case, end), f"({time.perf_counter() - start:.0f} s)", flush=True)


def _line(case: Case, end: Simulation) -> str:
    total = end.spent.total()
    share = {name: seconds / total for name, seconds in end.spent.items()}
    rest = share.get("committing", 0.0) + share.get("packing", 0.0)
    return (
        f"{case.chunk_units:11} {case.unit_s:7} {case.lost_every_h:9} h "
        f"1..{case.fastest:.0f} {'' if case.has_copies else 'no copies'} | "
        f"{end.now / 3600:6.2f} {case.chunks / end.now:8.1f} {end.driver_s / end.now:7.1%} "
        f"{end.driver_behind_s:9.2f} | {1 - share['work']:6.2%} "
        + " ".join(
            f"{share.get(name, 0.0):7.2%}" for name in ("cut off", "loading", "copies", "waiting")
        )
        + f" {rest:7.2%} | {(end.now - end.handed_out_s) / 60:6.1f} {end.most_parts:7,}"
    )


if __name__ == "__main__":
    main()
