"""The processes and jobs that drive runs: their logs, stopping them, the runs of a folder."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from engine.files import is_file
from jobs.cluster import submission
from jobs.pool.attempts import Attempt, attempts, log_path
from jobs.runs.run import PLAN
from jobs.runs.trace_run import TraceRun, open_run
from jobs.tracing.status import Status, status_of
from schemas.errors import ClusterUnavailable, DqfError, StoreError

STOP_S = 60.0
"""How long a driver may take to end once it is asked to."""
POLL_S = 0.2


def log_lines(location: str, *, address: str | None, follow: bool) -> Iterator[str]:
    """Yield the lines of the last attempt's log; until it ends, with `follow`.

    The log is a file of a run's folder, else that of its job. StoreError: there is none.
    """
    run = _seen_run(location, address)
    last = _last_attempt(run)
    if run and last:
        path = log_path(run, last)
        if path and is_file(path):
            yield from _file_lines(run, last, path, follow=follow)
            return
    job_address, submission_id = _job(location, last, address)
    if follow:
        yield from submission.follow(job_address, submission_id)
    else:
        yield from submission.logs(job_address, submission_id).splitlines()


def stop_driver(location: str, *, address: str | None) -> str:
    """Stop what drives a run and return a line that says so.

    StoreError: nothing does, or it runs on another machine.
    """
    last = _last_attempt(_seen_run(location, address))
    if last and last.outcome is not None:
        raise StoreError(f"nothing works on run {location}: its last attempt {last.outcome}")
    if last and last.is_alive:
        return _terminate(last)
    job_address, submission_id = _job(location, last, address)
    job = submission.stop(job_address, submission_id)
    return f"job {submission_id}: {job.status}"


def runs_in(folder: Path) -> Iterator[Status]:
    """Yield how each run of a folder stands; one that cannot be read says why."""
    for path in sorted(folder.glob(f"*/{PLAN}")):
        try:
            yield status_of(open_run(path.parent))
        except DqfError as error:
            yield Status(
                run=str(path.parent), state="unreadable", done=0, failed=0, left=0,
                units_per_minute=None, eta_minutes=None, attempts=0, message=str(error),
            )  # fmt: skip


def _seen_run(location: str, address: str | None) -> TraceRun | None:
    """Return the run; None if its folder is not seen from here but a cluster is."""
    try:
        return open_run(location)
    except StoreError:
        if address is None:
            raise
        return None


def _last_attempt(run: TraceRun | None) -> Attempt | None:
    tried = attempts(run) if run else []
    return tried[-1] if tried else None


def _job(location: str, found: Attempt | None, address: str | None) -> tuple[str, str]:
    """Return the cluster and id of the job that works, or worked last, on a run."""
    if address:
        if not submission.is_job_address(address):
            raise ClusterUnavailable(f"--address {address} takes no jobs: give http://HEAD:8265")
        # The folder may be another's: of its words only that one of the run's own jobs is meant.
        ids = [job.submission_id for job in submission.jobs(address, run=location)]
        if not ids:
            raise StoreError(f"no job at {address} works on run {location}")
        return address, found.submission_id if found and found.submission_id in ids else ids[0]
    if found and found.submission_id:
        # The user's token goes to no address that a folder names.
        raise StoreError(
            f"run {location} is worked on by job {found.submission_id}, submitted to "
            f"{found.jobs_address}: give that as --address, or in RAY_ADDRESS, if you trust it"
        )
    if found is None:
        raise StoreError(f"nothing has worked on run {location} yet")
    if found.is_alive is None:
        raise StoreError(
            f"run {location} was driven by process {found.pid} on {found.host}, not by a job: "
            "go there"
        )
    raise StoreError(f"nothing works on run {location}: its driver, process {found.pid}, is gone")


def _terminate(attempt: Attempt) -> str:
    os.kill(attempt.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while attempt.is_alive:
        if time.monotonic() > deadline:
            raise StoreError(f"process {attempt.pid} has not ended in {STOP_S:g} s")
        time.sleep(POLL_S)
    return f"process {attempt.pid} has ended"


def _file_lines(run: TraceRun, attempt: Attempt, path: Path, *, follow: bool) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="backslashreplace") as file:
        while True:
            # Whether it has ended is asked first, so that its last lines are read after that.
            current = attempts(run)[attempt.number]
            has_ended = current.outcome is not None or current.is_alive is False
            yield from (line.rstrip("\n") for line in file)
            if has_ended or not follow:
                return
            time.sleep(POLL_S)
