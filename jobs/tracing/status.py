"""The status of a run, from its folder alone: state, counts, rate, leading components so far."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jobs.pool.attempts import Attempt, Outcome, attempts, last_begun
from jobs.runs.packs import group_chunks
from jobs.runs.progress import progress_of
from jobs.runs.run import Run

WINDOW_S = 600.0
"""The rate is measured over this time before the last commit, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The status of a run; `dqf trace status` prints these fields."""

    run: str
    state: str
    """planned, running, finished, incomplete (it had finished, and parts are gone since), stopped,
    failed, interrupted (the driver was killed), or `on HOST`: the driver's state is not known on
    this machine, and nothing was committed lately."""
    done: int
    """Units that were tried."""
    failed: int
    left: int
    units_per_minute: float | None
    eta_minutes: float | None
    attempts: int
    message: str
    """Why the last attempt ended, if it failed."""


def status_of(run: Run[Any]) -> Status:
    """Return the status of a run."""
    progress = progress_of(run)
    tried = attempts(run)
    last = tried[-1] if tried else None
    rate, idle_s = _rate(run)
    left = progress.total - progress.done
    state = _state(last, left=left, idle_s=idle_s)
    return Status(
        run=run.location,
        state=state,
        done=progress.done,
        failed=progress.failed,
        left=left,
        units_per_minute=rate,
        eta_minutes=left / rate if rate and state == "running" else None,
        attempts=len(tried),
        message=last.message if last else "",
    )


def _state(last: Attempt | None, *, left: int, idle_s: float | None) -> str:
    if last is None:
        return "planned" if left else "finished"
    if last.outcome is Outcome.FINISHED and left:
        return "incomplete"
    if last.outcome is not None:
        return last.outcome.value
    if last.is_alive is None:
        return "running" if idle_s is not None and idle_s < WINDOW_S else f"on {last.host}"
    if last.is_alive:
        return "running"
    return "interrupted" if left else "finished"


def _rate(run: Run[Any]) -> tuple[float | None, float | None]:
    """Return the recent units per minute, and the seconds since the last commit.

    Times come from the storage's clock; the rate is None if they do not suffice for one.
    """
    commits = sorted(_commits(run))
    if not commits:
        return None, None
    newest = commits[-1][0]
    start = max(newest - WINDOW_S, last_begun(run))
    minutes = (newest - start) / 60
    units = sum(units for at, units in commits if at > start)
    return units / minutes if minutes > 0 else None, time.time() - newest


def _commits(run: Run[Any]) -> Iterator[tuple[float, int]]:
    """Yield, for each part that counts, its time of writing and its number of units."""
    live = run.live()
    for (chunk, generation), name in live.parts.items():
        if generation == 0:
            yield live.modified[name], len(run.ordinals(chunk))
    for group, name in live.packs.items():
        yield live.modified[name], sum(len(run.ordinals(c)) for c in group_chunks(run, group))
