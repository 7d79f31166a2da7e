"""Following a job on a cluster from the command line, and ending as it ended."""

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from cli.printing.lines import say

if TYPE_CHECKING:
    from jobs.cluster.submission import Job


def follow_to_end(address: str, submission_id: str) -> NoReturn:
    """Print a job's log to stderr as it comes, then exit with the job's exit code."""
    from jobs.cluster.submission import follow, job

    say(f"job {submission_id} at {address}", err=True)
    try:
        for line in follow(address, submission_id):
            say(line, err=True)
        ended = job(address, submission_id)
    except KeyboardInterrupt:
        say(f"job {submission_id} goes on at {address}", err=True)
        raise typer.Exit(130) from None
    if ended.exit_code is None and ended.status != "SUCCEEDED":
        say(f"job {submission_id}: {ended.status.lower()}: {ended.message}", err=True)
    raise typer.Exit(exit_code_of(ended))


def exit_code_of(ended: "Job") -> int:
    """Return the exit code that stands for how a job ended; a shell's 128 + N for a signal."""
    if ended.exit_code is None:
        return 0 if ended.status == "SUCCEEDED" else 1
    return ended.exit_code if ended.exit_code >= 0 else 128 - ended.exit_code


def shared(path: Path | str) -> str:
    """Return a path as the nodes of a cluster find it: absolute, in a folder that they share."""
    return str(path) if "://" in str(path) else str(Path(path).absolute())
