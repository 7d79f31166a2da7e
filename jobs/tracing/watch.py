"""The processes and jobs that drive runs: their logs, stopping them, the runs of a folder."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.files import is_file
from jobs.cluster import submission
from jobs.pool.attempts import Attempt, attempts, log_path
from jobs.runs.kinds import open_any
from jobs.runs.run import PLAN, Run
from jobs.tracing.status import Status, status_of
from schemas.errors import ClusterUnavailable, DqfError, StoreError

STOP_S = 60.0
"""Seconds that a driver may take to end after it was asked to."""
POLL_S = 0.2


def log_lines(location: str, *, address: str | None, follow: bool) -> Iterator[str]:
    """Yield the lines of the last attempt's log; with `follow`, until the attempt ends.

    The log is a file in the run's folder or else the log of its job. StoreError: there is no log.
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
    """Stop the process or job that drives a run and return a line that says so.

    StoreError: nothing drives the run, or its driver runs on another machine.
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
    """Yield the status of each run in a folder; for an unreadable run, the reason.

    StoreError: the folder cannot be listed.
    """
    try:
        runs = [folder / name for name in sorted(os.listdir(folder)) if _may_be_run(folder / name)]
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # a name that is too long, or holds a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"cannot list {folder}: {reason}") from error
    for run in runs:
        try:
            yield status_of(open_any(run))
        except DqfError as error:
            yield Status(
                run=str(run), state="unreadable", done=0, failed=0, left=0,
                units_per_minute=None, eta_minutes=None, attempts=0, message=str(error),
            )  # fmt: skip


def _may_be_run(folder: Path) -> bool:
    """Return whether a folder holds a plan, or may not be looked into."""
    try:
        os.stat(folder / PLAN)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _seen_run(location: str, address: str | None) -> Run[Any] | None:
    """Return the run; None if its folder is not reachable from here but a cluster's address is
    given."""
    try:
        return open_any(location)
    except StoreError:
        if address is None:
            raise
        return None


def _last_attempt(run: Run[Any] | None) -> Attempt | None:
    tried = attempts(run) if run else []
    return tried[-1] if tried else None


def _job(location: str, attempt: Attempt | None, address: str | None) -> tuple[str, str]:
    """Return the cluster and id of the job that works, or worked last, on a run."""
    if address:
        if not submission.is_job_address(address):
            raise ClusterUnavailable(f"--address {address} takes no jobs: give http://HEAD:8265")
        # The folder may be somebody else's: it is trusted only to choose among the run's own jobs.
        ids = [job.submission_id for job in submission.jobs(address, run=location)]
        if not ids:
            raise StoreError(f"no job at {address} works on run {location}")
        return address, attempt.submission_id if attempt and attempt.submission_id in ids else ids[
            0
        ]
    if attempt and attempt.submission_id:
        # The user's token goes to no address that a folder names.
        raise StoreError(
            f"run {location} is worked on by job {attempt.submission_id}, submitted to "
            f"{attempt.jobs_address}: give that as --address if you trust it"
        )
    if attempt is None:
        raise StoreError(f"nothing has worked on run {location} yet")
    if attempt.is_alive is None:
        raise StoreError(
            f"run {location} was driven by process {attempt.pid} on {attempt.host}, not by a job: "
            "log in there"
        )
    raise StoreError(f"nothing works on run {location}: its driver, process {attempt.pid}, is gone")


def _terminate(attempt: Attempt) -> str:
    os.kill(attempt.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while attempt.is_alive:
        if time.monotonic() > deadline:
            raise StoreError(f"process {attempt.pid} has not ended in {STOP_S:g} s")
        time.sleep(POLL_S)
    return f"process {attempt.pid} has ended"


def _file_lines(run: Run[Any], attempt: Attempt, path: Path, *, follow: bool) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="backslashreplace") as file:
        while True:
            # The end is checked first, so that the last lines are read after it.
            current = next((a for a in attempts(run) if a.number == attempt.number), None)
            has_ended = current is None or current.outcome is not None or current.is_alive is False
            yield from (line.rstrip("\n") for line in file)
            if has_ended or not follow:
                return
            time.sleep(POLL_S)
