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
