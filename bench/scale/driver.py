"""The driver of `bench.scale`, in a process of its own that is killed in the middle of a run.

It does what `jobs.tracing.trace.trace_run` does, and writes one JSON line for all it has measured.
"""

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import psutil

import jobs.pool.pool
from jobs.cluster.connection import Cluster, connected
from jobs.pool.actors import WorkerSpec
from jobs.pool.limits import Limits
from jobs.pool.pool import run_tasks
from jobs.runs.packs import tidy
from jobs.runs.progress import open_tasks, progress_of
from jobs.runs.run import TaskDone
from jobs.runs.trace_run import TraceRun, open_run
from tests.made_up.runs import IdleWorker, WritingWorker

T = TypeVar("T")
MIB = 2**20
SAMPLE_S = 0.5


class Log:
    """The file of what was measured: a line is there, whole, whenever the process is killed."""

    def __init__(self, path: Path) -> None:
        """Append to `path`."""
        self._file = path.open("a")

    def add(self, kind: str, **fields: object) -> None:
        """Write one line."""
        self._file.write(json.dumps({"kind": kind, **fields}) + "\n")
        self._file.flush()

    def timed(self, name: str, work: Callable[[], T]) -> T:
        """Return the result of `work`, and write its seconds to the log."""
        start = time.perf_counter()
        result = work()
        self.add("timed", name=name, s=time.perf_counter() - start)
        return result


class Sampler:
    """Looks at the driver, Ray's two servers and the run's folder twice a second."""

    def __init__(self, run: TraceRun, log: Log) -> None:
        """Look at the Ray that this process has started."""
        self.done = 0
        """Tasks that are done, which the driver counts."""
        self._run, self._log = run, log
        self._start = time.perf_counter()
        self._driver = psutil.Process()
        children = self._driver.children(recursive=True)
        self._servers = {
            name: process
            for process in children
            for name in ("gcs_server", "raylet")
            if process.name() == name
        }
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look_until_end, daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Write one sample."""
        workers = [p for p in self._driver.children(recursive=True) if p.name().startswith("ray::")]
        self._log.add(
            "sample",
            s=time.perf_counter() - self._start,
            done=self.done,
            driver_mib=self._driver.memory_info().rss / MIB,
            driver_cpu_s=_cpu_s(self._driver),
            workers_cpu_s=sum(map(_cpu_s, workers)),
            parts=_num_files(self._run, "parts"),
            packs=_num_files(self._run, "packs"),
            **{f"{name}_mib": p.memory_info().rss / MIB for name, p in self._servers.items()},
            **{f"{name}_cpu_s": _cpu_s(p) for name, p in self._servers.items()},
        )

    def stop(self) -> None:
        """Write the last sample."""
        self._end.set()
        self._thread.join()
        self.look()

    def _look_until_end(self) -> None:
        while not self._end.wait(SAMPLE_S):
            self.look()


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def _num_files(run: TraceRun, folder: str) -> int:
    """Return the parts or packs of a run, without the empty one."""
    return len(os.listdir(Path(run.location, folder))) - 1


def main() -> None:
    """Drive a run to its end, or until as many tasks are done as it is to be killed at."""
    options = _options()
    log = Log(options.log)
    log.add("start")
    run = log.timed("open", lambda: _opened(options.run))
    log.timed("tables", lambda: run.complete())
    damaged = log.timed("tidy", lambda: tidy(run))
    log.timed("listing", run.live)
    tasks = log.timed("tasks", lambda: open_tasks(run))
    progress = log.timed("progress", lambda: progress_of(run))
    log.add("found", damaged=len(damaged), tasks=len(tasks), done=progress.done)
    with (
        connected(Cluster(actors=options.actors)) as capacity,
        mock.patch.object(jobs.pool.pool, "CALLS_IN_FLIGHT", options.in_flight),
    ):
        sampler = Sampler(run, log)
        on_task = _on_task(sampler, log, kill_at=options.kill_at)
        start = time.perf_counter()
        log.add("driving")
        spec = WorkerSpec(target=capacity.actors, gpus=0, **_spec(options))
        run_tasks(run, tasks, spec, limits=Limits(), on_task=on_task)
        sampler.stop()
        log.add("driven", s=time.perf_counter() - start, tasks=sampler.done)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--kill-at", type=int, help="tasks; to the end if not given")
    parser.add_argument("--idle-s", type=float, help="workers that nap so long and write nothing")
    parser.add_argument("--in-flight", type=int, default=jobs.pool.pool.CALLS_IN_FLIGHT)
    return parser.parse_args()


def _opened(location: str) -> TraceRun:
    """Return a run whose plan is read and whose units are counted."""
    run = open_run(location)
    assert run.num_chunks
    return run


def _spec(options: argparse.Namespace) -> dict[str, Any]:
    if options.idle_s is None:
        return {"worker_class": WritingWorker, "options": {}}
    return {"worker_class": IdleWorker, "options": {"task_s": options.idle_s}}


def _on_task(sampler: Sampler, log: Log, *, kill_at: int | None) -> Callable[[TaskDone], None]:
    """Return a callback that counts tasks, and kills this process at one like a lost machine."""
    start = time.perf_counter()

    def on_task(_: TaskDone) -> None:
        sampler.done += 1
        if sampler.done == 1:
            log.add("timed", name="first task", s=time.perf_counter() - start)
        if sampler.done == kill_at:
            sampler.look()
            os.kill(os.getpid(), signal.SIGKILL)

    return on_task


if __name__ == "__main__":
    main()
