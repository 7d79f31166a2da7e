"""Drivers in processes of their own, and what must hold whatever happened to them."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from jobs.cluster.processes import DRIVER_VARIABLE, orphans
from jobs.pool.attempts import Outcome, attempts
from jobs.query.select import run_query
from jobs.runs.trace_run import TraceRun
from jobs.tracing.status import status_of
from tests.made_up.small_run import all_units, make_run, score_rows

ROOT = Path(__file__).parents[2]
WAIT_S = 120.0
KILLED = None
"""The outcome of an attempt whose driver was killed."""
FINISHED, STOPPED, FAILED = Outcome.FINISHED, Outcome.STOPPED, Outcome.FAILED


@dataclass(kw_only=True)
class Trial:
    """A run, what drives it, and a folder of what its workers leave."""

    run: TraceRun
    scratch: Path
    environment: dict[str, str] = field(default_factory=dict[str, str])
    """What drivers have in theirs besides this process's."""
    drivers: list[subprocess.Popen[str]] = field(default_factory=list[subprocess.Popen[str]])

    def start(self, **options: Any) -> subprocess.Popen[str]:
        """Start a driver of the run."""
        arguments = json.dumps({"scratch": str(self.scratch), **options})
        self.scratch.mkdir(exist_ok=True)
        self.drivers.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.faults.driver", self.run.location, arguments],
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stderr=(self.scratch / "stderr").open("a"),
                text=True,
            )
        )
        return self.drivers[-1]

    def run_tasks(self, **options: Any) -> int:
        """Drive the run to its end; return the exit code."""
        return self.start(**options).wait(timeout=WAIT_S)

    @property
    def said(self) -> str:
        """What the drivers wrote on stderr."""
        return (self.scratch / "stderr").read_text()

    def workers(self) -> list[psutil.Process]:
        """Return the workers that are alive."""
        found: list[psutil.Process] = []
        for path in self.scratch.glob("pids/*"):
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(int(path.name))
                if process.environ().get(DRIVER_VARIABLE):
                    found.append(process)
        return found

    def wait_until(self, chunks: int) -> None:
        """Wait until so many chunks are committed."""
        wait_until(lambda: len(self.run.done_chunks()) >= chunks)

    def processes_left(self) -> list[psutil.Process]:
        """Return the orphans of this trial's drivers."""
        pids = {str(driver.pid) for driver in self.drivers}
        return [process for process in orphans() if _driver(process) in pids]


def _driver(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return process.environ()[DRIVER_VARIABLE].partition(":")[0]
    return ""


def new_trial(folder: Path, *, seeds: int = 40, chunk_units: int = 3) -> Trial:
    """Return a trial of three units a seed."""
    run = make_run(folder / "run", seeds=tuple(range(seeds)), chunk_units=chunk_units)
    scratch = Path(tempfile.mkdtemp(prefix="scratch", dir=folder))
    return Trial(run=run, scratch=scratch)


def wait_until(is_so: Callable[[], bool], *, seconds: float = WAIT_S) -> None:
    """Wait until something is so; AssertionError if it takes too long."""
    deadline_s = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def check_whole(
    trial: Trial,
    outcomes: Sequence[Outcome | None],
    failures: Mapping[str, str] | None = None,
) -> None:
    """Check that every unit counts exactly once and that nothing is left behind.

    `failures` are the units that must have failed, `SUBJECT-SEED` to the error's name.
    """
    run, failures = trial.run, failures or {}
    units = all_units(run)
    failed = {f"{row.unit.caption.subject}-{row.unit.seed}": row.unit_id for row in units}
    expected = {failed[name]: error for name, error in failures.items()}
    assert run.done_chunks() == set(range(run.num_chunks))
    assert sorted((f.unit_id, f.error) for f in run.failures()) == sorted(expected.items())
    listed = run_query(run, "SELECT unit_id, error FROM failures").to_pylist()
    assert sorted((f["unit_id"], f["error"]) for f in listed) == sorted(expected.items())
    undisturbed = [
        row for unit in units if unit.unit_id not in expected for row in score_rows(unit)
    ]
    assert _sorted(run_query(run, "SELECT * FROM scores").to_pylist()) == _sorted(undisturbed)
    assert not [path for path in Path(run.location).rglob(".*")]
    status = status_of(run)
    assert (status.state, status.left, status.failed) == ("finished", 0, len(expected))
    assert status.units_per_minute is None or status.units_per_minute >= 0
    assert [attempt.outcome for attempt in attempts(run)] == list(outcomes)
    wait_until(lambda: not trial.processes_left(), seconds=15)


def _sorted(rows: list[dict]) -> list[dict]:
    return sorted(rows, key=lambda row: (row["unit_id"], row["component"], row["measure"]))
