"""A run of a million units from plan to ranking, with workers that have no model.

Everything but the model is the code that users run: the plan's tables, the driver, Ray's actors,
commits, packing, views. The driver is killed halfway and started again, while a reader counts
scores all the time.

    python -m bench.scale [--units 1000000] [--captions 10000] [--chunk-units 64] [--actors 2]
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from jobs.query.rank import SHOWN, Choice, leading, ranked
from jobs.query.select import opened_views, run_query
from jobs.runs.packs import tidy
from jobs.runs.progress import open_tasks
from jobs.runs.provenance import versions
from jobs.runs.run import Task
from jobs.runs.trace_run import TraceRun, open_run
from jobs.tracing.status import status_of
from tests.made_up.runs import MEASURES, WritingWorker, make_plan, make_run

T = TypeVar("T")
MIB = 2**20
READ_S = 5.0
"""Seconds between two of the reader's queries."""
MOMENTS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
COUNTS = "SELECT count(*) AS scores, count(DISTINCT unit_id) AS units FROM scores"
EXACTLY_ONCE = """
SELECT count(*) AS scores, count(DISTINCT (unit_id, component, measure)) AS distinct_scores,
  count(DISTINCT unit_id) AS units, (SELECT count(*) FROM units) AS planned,
  (SELECT count(*) FROM (SELECT unit_id FROM units ANTI JOIN scores USING (unit_id))) AS missing
FROM scores
"""
CALLS = {
    "calls that return at once": (0.0, 2),
    "the same, 4,000 in flight an actor": (0.0, 4000),
    "calls of 10 ms, 4,000 in flight an actor": (0.01, 4000),
    "calls of 30 ms, 4,000 in flight an actor": (0.03, 4000),
}
"""Seconds a call and calls in flight an actor, of the runs that write nothing: two actors with
4,000 calls of 30 ms give their driver as much in hand as 4,000 actors with two of two minutes."""


def main() -> None:
    """Plan, run, kill, resume and query; print the time of each."""
    options = _options()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {_machine()}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        run = _planned(options, Path(name, "run"))
        reader = Reader(run, scores_a_unit=len(MEASURES) * options.components)
        half = run.num_chunks // 2
        before = _driven(options, run, "--kill-at", half)
        _print_run("First half, until the driver was killed", options, before)
        _print_folder(run)
        after = _driven(options, run)
        _print_resume(after)
        _print_run("Second half", options, after)
        reader.stop()
        _print_folder(run)
        _print_queries(run, options)
        if options.loose:
            _print_loose(options, run, Path(name, "loose"))
        if options.calls:
            _print_calls(options, run, Path(name, "idle"))
        if reader.wrong:
            raise SystemExit("the reader has read something wrong")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--captions", type=int, default=10_000)
    parser.add_argument("--components", type=int, default=2)
    parser.add_argument("--chunk-units", type=int, default=64)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--calls", type=int, default=15_000, help="idle calls; 0: not measured")
    parser.add_argument("--loose", type=int, default=10_000, help="parts to read unpacked; 0: none")
    parser.add_argument("--folder", type=Path, help="where the run is made; the system's if not")
    return parser.parse_args()


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} CPU cores, {memory:.0f} GiB, Python "
        f"{platform.python_version()}, ray {versions()['ray']}; load {os.getloadavg()[0]:.1f}"
    )


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Return the seconds that `work` took, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _planned(options: argparse.Namespace, location: Path) -> TraceRun:
    """Return a new run, and print the time of planning it."""
    plan = make_plan(
        units=options.units, captions=options.captions, chunk_units=options.chunk_units
    )
    plan_s, run = timed(lambda: make_run(location, plan, components=options.components))
    open_s, chunks = timed(lambda: open_run(location).num_chunks)
    print(
        f"\nPlan: {len(run.units):,} units of {len(plan.captions):,} captions, "
        f"{chunks:,} chunks of {plan.chunk_units}, {options.actors} actors\n"
        f"written in {plan_s:.2f} s, opened in {open_s:.2f} s, "
        f"plan.json {_mib(location / 'plan.json'):.1f} MiB, "
        f"units.parquet {_mib(location / 'units.parquet'):.1f} MiB, "
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB",
        flush=True,
    )
    return run


def _mib(path: Path) -> float:
    return path.stat().st_size / MIB


class Reader:
    """Counts a run's scores in a thread while it grows; an error or a wrong count is printed."""

    def __init__(self, run: TraceRun, *, scores_a_unit: int) -> None:
        """Begin to read."""
        self._run, self._scores_a_unit = run, scores_a_unit
        self._seen: list[tuple[int, float]] = []
        self.wrong: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._read_until_end, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop reading and print what was read."""
        self._end.set()
        self._thread.join()
        print(
            f"\nReader meanwhile: {len(self._seen)} counts of up to {self._seen[-1][0]:,} scores, "
            f"slowest {max(seconds for _, seconds in self._seen):.2f} s; "
            f"wrong: {'; '.join(self.wrong) or 'none'}"
        )

    def _read_until_end(self) -> None:
        while not self._end.wait(READ_S if self._seen else 0):
            try:
                self._read()
            except Exception as error:  # noqa: BLE001 whatever it is, it is the finding
                self.wrong.append(f"{type(error).__name__}: {error}")

    def _read(self) -> None:
        seconds, table = timed(lambda: run_query(self._run, COUNTS))
        (counts,) = table.to_pylist()
        if counts["scores"] != self._scores_a_unit * counts["units"]:
            self.wrong.append(f"{counts} is not a whole number of units")
        if self._seen and counts["scores"] < self._seen[-1][0]:
            self.wrong.append(f"{counts['scores']} scores after {self._seen[-1][0]}")
        self._seen.append((counts["scores"], seconds))


def _driven(options: argparse.Namespace, run: TraceRun, *arguments: object) -> list[dict[str, Any]]:
    """Drive a run in a separate process and return the lines that it wrote."""
    log = Path(run.location).with_suffix(".jsonl")
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "bench.scale.driver", run.location, "--log", str(log)]
    command += ["--actors", str(options.actors), *map(str, arguments)]
    code = subprocess.run(command, check=False).returncode
    if code not in (0, -9):
        raise SystemExit(f"the driver ended with {code}")
    return [json.loads(line) for line in log.read_text().splitlines()]


def _of(lines: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == kind]


def _print_run(title: str, options: argparse.Namespace, lines: Sequence[dict[str, Any]]) -> None:
    """Print a drive's rate, its CPU time, and its memory and files over time."""
    samples = _of(lines, "sample")
    first, last = _first_working(samples), samples[-1]
    done = last["done"] - first["done"]
    seconds = last["s"] - first["s"]
    if not done:
        return print(f"\n{title}: over before it was looked at twice")
    print(
        f"\n{title}: {done:,} chunks in {seconds:.1f} s: {done / seconds:.0f} chunks/s, "
        f"{done * options.chunk_units / seconds:,.0f} units/s\n"
        + ", ".join(
            f"{name} {1000 * (last[f'{name}_cpu_s'] - first[f'{name}_cpu_s']) / done:.2f}"
            for name in ("driver", "workers", "gcs_server", "raylet")
        )
        + " ms of CPU a chunk\n   done      s  driver MiB  GCS MiB  raylet MiB  parts  packs"
    )
    for moment in MOMENTS:
        sample = next(s for s in samples if s["done"] >= moment * last["done"])
        print(
            f"{sample['done']:7,} {sample['s']:6.1f} {sample['driver_mib']:11.0f} "
            f"{sample['gcs_server_mib']:8.0f} {sample['raylet_mib']:11.0f} "
            f"{sample['parts']:6,} {sample['packs']:6,}"
        )
    print(f"most parts at once {max(sample['parts'] for sample in samples):,}", flush=True)


def _first_working(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the first sample in which a task was done: actors take a while to start."""
    return next((sample for sample in samples if sample["done"]), samples[-1])


def _print_resume(lines: Sequence[dict[str, Any]]) -> None:
    seconds = {line["name"]: line["s"] for line in _of(lines, "timed")}
    (found,) = _of(lines, "found")
    first = seconds.pop("first task", 0.0)
    print(
        f"\nResume: {found['done']:,} units done, {found['tasks']:,} chunks left, "
        f"{found['damaged']} parts damaged\n"
        + ", ".join(f"{name} {s:.2f}" for name, s in seconds.items())
        + f": {sum(seconds.values()):.2f} s; then actors start and end the first task in "
        f"{first:.2f} s"
    )


def _print_folder(run: TraceRun) -> None:
    """Print the run's size on disk, and the time to read its status."""
    for folder in ("parts", "packs"):
        files = [file for file in run.storage.files(folder) if "empty" not in file.name]
        if files:
            size = sum(file.size for file in files)
            scores = _num_scores(run, [file.name for file in files])
            print(f"{len(files):,} {folder}: {size / MIB:.1f} MiB, {size / scores:.1f} bytes/score")
    status_s, status = timed(lambda: status_of(run))
    leading_s, _ = timed(lambda: _leading(run))
    print(
        f"status {status_s:.2f} s ({status.done:,} units done), what leads {leading_s:.2f} s",
        flush=True,
    )


def _leading(run: TraceRun) -> pa.Table:
    with opened_views(run) as views:
        return leading(views, Choice(measure="target"))


def _ranked(run: TraceRun) -> pa.Table:
    with opened_views(run) as views:
        return ranked(views, Choice(measure="target"), columns=SHOWN, top=10)


def _num_scores(run: TraceRun, names: Sequence[str]) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(path).num_rows for path in run.storage.local(names))


def _print_queries(run: TraceRun, options: argparse.Namespace) -> None:
    """Print how long queries over all scores take, and whether each score is there once."""
    rank_s, ranking = timed(lambda: _ranked(run))
    count_s, _ = timed(lambda: run_query(run, "SELECT count(*) FROM scores"))
    once_s, once = timed(lambda: run_query(run, EXACTLY_ONCE))
    (counts,) = once.to_pylist()
    print(
        f"rank {rank_s:.2f} s ({ranking.num_rows} rows), count(*) {count_s:.2f} s, "
        f"each score once {once_s:.2f} s\n{counts}",
        flush=True,
    )
    units = len(run.units)
    scores = units * len(MEASURES) * options.components
    expected = (scores, scores, units, units, 0)
    if tuple(counts.values()) != expected:
        raise SystemExit(f"a score is missing or there twice: expected {expected}")


def _print_loose(options: argparse.Namespace, run: TraceRun, folder: Path) -> None:
    """Print what a run costs to see and to resume that has many parts which no pack holds."""
    loose = make_run(folder, run.plan, components=options.components)
    worker = WritingWorker(loose.location)
    for chunk in range(min(options.loose, run.num_chunks - 1)):
        worker.run(Task(chunk=chunk))
    works: dict[str, Callable[[], object]] = {
        "tidy": lambda: tidy(loose),
        "tasks": lambda: open_tasks(loose),
        "status": lambda: status_of(loose),
        "rank": lambda: _ranked(loose),
    }
    seconds = {name: timed(work)[0] for name, work in works.items()}
    print(
        f"\n{chunk + 1:,} parts that no pack holds: "
        + ", ".join(f"{name} {s:.2f} s" for name, s in seconds.items()),
        flush=True,
    )


def _print_calls(options: argparse.Namespace, run: TraceRun, folder: Path) -> None:
    """Print what the driver does alone, with workers that write nothing."""
    for name, (nap_s, in_flight) in CALLS.items():
        shutil.rmtree(folder, ignore_errors=True)
        idle = make_run(folder, run.plan, components=options.components)
        calls = min(options.calls, run.num_chunks) // (8 if nap_s else 2)
        arguments = ["--kill-at", calls, "--idle-s", nap_s, "--in-flight", in_flight]
        samples = _of(_driven(options, idle, *arguments), "sample")
        first, last = _first_working(samples), samples[-1]
        done, seconds = last["done"] - first["done"], last["s"] - first["s"]
        cpu_s = last["driver_cpu_s"] - first["driver_cpu_s"]
        print(
            f"Driver alone, {name}: {done / seconds:,.0f} calls/s, "
            f"{1000 * cpu_s / done:.2f} ms of its CPU a call, {cpu_s / seconds:.0%} of a core",
            flush=True,
        )


if __name__ == "__main__":
    main()
