"""The progress of a run, and its remaining tasks."""

from collections.abc import Callable
from dataclasses import dataclass

from jobs.runs.run import Run, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of a run in units."""

    done: int
    """Units that were tried, including those that failed."""
    failed: int
    total: int

    @property
    def unscored(self) -> int:
        """Units that have no scores: those that were not tried, or failed."""
        return self.total - self.done + self.failed


Note = Callable[[str], None]
"""Shows a line to the user."""


def open_tasks(run: Run[object]) -> list[Task]:
    """Return the chunks that are not committed."""
    done = run.done_chunks()
    return [Task(chunk=chunk) for chunk in range(run.num_chunks) if chunk not in done]


def failed_tasks(run: Run[object]) -> list[Task]:
    """Return the tasks that try the failed units again, as the next generation."""
    return [
        Task(chunk=commit.chunk, generation=commit.generation + 1)
        for commit in run.commits()
        if commit.failures
    ]


def progress_of(run: Run[object]) -> Progress:
    """Return the progress of a run, from its folder alone."""
    commits = run.commits()
    return Progress(
        done=sum(len(run.ordinals(commit.chunk)) for commit in commits),
        failed=sum(len(commit.failures) for commit in commits),
        total=len(run.units),
    )


def unscored(run: Run[object]) -> str:
    """Return a sentence on the units that have no scores, of which no number is; "" if all have."""
    progress = progress_of(run)
    if not progress.unscored:
        return ""
    options = ["--retry-failed"] if progress.done == progress.total else []
    failed = f", {progress.failed:,} of which failed" if progress.failed else ""
    return (
        f"{progress.unscored:,} of {progress.total:,} units of {run.name} have no scores"
        f"{failed}: the numbers are of the others, and "
        f"{run.resume_hint(*options)} continues."
    )
