"""Progress of long work on stderr: a bar with the time left on a terminal, otherwise a few
lines."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.printing.lines import say

if TYPE_CHECKING:
    from jobs.runs.progress import Progress


@contextmanager
def progress_bar(
    doing: str = "tracing", things: str = "units"
) -> "Generator[Callable[[Progress], None]]":
    """Yield a callback that shows a run's progress."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _progress_lines(doing, things)
        return
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(things)
        yield lambda at: bar.update(task, completed=at.done, total=at.total)


def _progress_lines(doing: str, things: str, every_s: float = 10.0) -> "Callable[[Progress], None]":
    start_s = time.monotonic()
    start_done: int | None = None
    last_s = float("-inf")

    def show(at: "Progress") -> None:
        nonlocal start_done, last_s
        start_done = at.done if start_done is None else start_done
        now_s = time.monotonic()
        if now_s - last_s < every_s and at.done < at.total:
            return
        last_s = now_s
        rate = (at.done - start_done) / max(now_s - start_s, 1e-9)
        eta = f", {(at.total - at.done) / rate:.0f} s left" if rate > 0 else ""
        failed = f", {at.failed} failed" if at.failed else ""
        say(f"{doing}: {at.done} of {at.total} {things}{failed}{eta}", err=True)

    return show
