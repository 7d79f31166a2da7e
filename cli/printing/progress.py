"""Progress of long work on stderr, with rate and time left: a bar on a terminal, otherwise
lines."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cli.printing.lines import DETAIL, note

if TYPE_CHECKING:
    from jobs.runs.progress import Progress

EVERY_S = 10.0
"""Seconds between lines."""


@contextmanager
def progress_bar(
    doing: str = "tracing", things: str = "units"
) -> "Generator[Callable[[Progress], None]]":
    """Yield a callback that shows a run's progress."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    if DETAIL.get().quiet or not DETAIL.get().progress:
        yield lambda at: None
        return
    console, pace = Console(stderr=True), Pace(things=things)
    if not console.is_terminal:
        yield _progress_lines(doing, pace)
        return
    counts = (MofNCompleteColumn(), TextColumn("{task.fields[at]}"))
    with Bar(TextColumn(doing), BarColumn(), *counts, console=console) as bar:
        task = bar.add_task(things, at=things)
        yield lambda at: bar.update(
            task, completed=at.done, total=at.total, at=things + pace.words(at)
        )


@dataclass(slots=True, kw_only=True)
class Pace:
    """The rate of work and the time that is left, by single units."""

    things: str
    clock: Callable[[], float] = time.monotonic
    seen: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    """When how many units were done: at the start, and when the first of them were."""

    def words(self, at: "Progress") -> str:
        """Return the words after the counts: failures, rate and time left."""
        failed = f", {at.failed} failed" if at.failed else ""
        rate = self._rate(at.done)
        if not rate or at.done >= at.total:
            return failed
        left = time_text((at.total - at.done) / rate)
        return f"{failed}, {rate_text(rate, self.things)}, {left} left"

    def _rate(self, done: int) -> float:
        """Return units a second; the time in which models are opened counts at first alone."""
        now_s = self.clock()
        if not self.seen or (len(self.seen) == 1 and done > self.seen[0][1]):
            self.seen.append((now_s, done))
        start_s, start = next(
            (s for s in reversed(self.seen) if s[1] < done and s[0] < now_s), (now_s, done)
        )
        return (done - start) / (now_s - start_s) if now_s > start_s else 0.0


def rate_text(rate: float, things: str) -> str:
    """Return a rate, of things a second, as the number that people read best."""
    for seconds, name in ((1, "s"), (60, "min")):
        if rate * seconds >= 1:
            return f"{rate * seconds:.3g} {things}/{name}"
    return f"{rate * 3600:.2g} {things}/h"


def time_text(seconds: float) -> str:
    """Return a time in seconds, whole minutes, or hours."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _progress_lines(doing: str, pace: Pace) -> "Callable[[Progress], None]":
    last_s = float("-inf")

    def show(at: "Progress") -> None:
        nonlocal last_s
        words, now_s = pace.words(at), time.monotonic()
        if now_s - last_s < EVERY_S and at.done < at.total:
            return
        last_s = now_s
        note(f"{doing}: {at.done} of {at.total} {pace.things}{words}")

    return show
