"""Commands that work on a run: from this process, or as a job on a cluster, which is followed."""

import shlex
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import typer

from cli.options.run import RunOptions
from cli.printing.answers import say_unscored
from cli.printing.lines import note, say, say_lines
from cli.printing.progress import progress_bar
from engine.files import is_folder

if TYPE_CHECKING:
    from jobs.cluster.submission import Job
    from jobs.runs.progress import Progress
    from jobs.runs.run import Run
    from jobs.runs.trace_run import TraceRun

ADDRESS = "address"
"""The option that names a cluster; a job finds its own cluster without it."""
HERE = (ADDRESS, "wait")
"""Options of this process alone; a job is started without them."""


@contextmanager
def driven(
    run: "Run[Any]", *, address: str | None, doing: str
) -> "Generator[Callable[[Progress], None]]":
    """Yield a callback that shows a run's progress; Ctrl-C exits with 130."""
    note(f"{run.noun} {run.location}: starting {address or 'a local Ray'}")
    try:
        with progress_bar(doing) as show:
            yield show
    except KeyboardInterrupt:
        note(f"stopped; the same command continues {run.noun} {run.location}")
        raise typer.Exit(130) from None


def say_end(run: "Run[Any]", end: "Progress") -> None:
    """Print the progress of a run that failures do not end."""
    if end.done < end.total:
        say_unscored(run)
    elif end.failed:
        failed = f"{end.failed} of {end.total} units failed"
        say(f"warning: {failed}; --retry-failed tries them again", err=True)
    note(f"{run.noun} {run.location}: {end.done} of {end.total} units done")


def end_as(end: "Progress") -> None:
    """Exit with 1 if units of a run have failed; called when the results are printed."""
    if end.failed:
        raise typer.Exit(1)


def arguments(context: typer.Context, replaced: Mapping[str, object] | None = None) -> list[str]:
    """Return the called command as the arguments of a job.

    Options with their default values are left out, and paths become absolute. `replaced` holds
    other values for some parameters; None leaves a parameter out.
    """
    given = {
        name: value
        for name, value in context.params.items()
        if name not in HERE and getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"
    }
    values = given | dict(replaced or {})
    words = [word for param in context.command.params for word in _words(param, values)]
    return [*_command(context), *words]


def _command(context: Any) -> list[str]:
    """Return the words that name a command, below the program's own name."""
    return [*_command(context.parent), context.info_name] if context.parent else []


def _words(param: Any, values: Mapping[str, object]) -> Iterator[str]:
    """Yield the words of a parameter on the command line: a list repeats its option."""
    value = values.get(param.name)
    if value is None:
        return
    option = next((name for name in param.opts if name.startswith("--")), None)
    if isinstance(value, bool):
        yield from [option] if value and option else param.secondary_opts[:1]
        return
    for item in cast("Iterable[object]", value) if isinstance(value, list | tuple) else [value]:
        text = shared(item) if isinstance(item, Path) else str(item)
        yield from [option, text] if option else [text]


def follow_as_job(
    arguments: list[str],
    *,
    address: str,
    out: Path,
    files: Mapping[str, bytes] | None = None,
    ships_reference_model: bool = True,
    waits: bool,
) -> NoReturn:
    """Start a command that writes the folder `out` as a job and exit.

    If it `waits`, it follows the job and exits with its exit code. Otherwise it prints the job's
    id.
    """
    from jobs.cluster.submission import cluster_gpus, submit

    submission_id = submit(
        address,
        arguments=arguments,
        # The job is named by the folder that it writes: a job named by a run is one that traces it.
        run=shared(out),
        files=files or {},
        gpus=1 if cluster_gpus(address) else 0,
        ships_reference_model=ships_reference_model,
    )
    if waits:
        follow_to_end(address, submission_id)
    say(f"submitted {submission_id} to {address}", err=True)
    say(f"`dqf trace list --address {shlex.quote(address)}` shows its state", err=True)
    say(submission_id)
    raise typer.Exit


def trace_here(run: "TraceRun", how: RunOptions, *, retry_failed: bool) -> None:
    """Trace the rest of a run from this process, show its progress, and exit with 1 if units have
    failed."""
    from jobs.tracing.trace import trace_run

    with driven(run, address=how.address, doing="tracing") as show:
        end = trace_run(
            run,
            cluster=how.cluster(),
            rows=how.rows,
            offload=how.offload,
            limits=how.limits(),
            retry_failed=retry_failed,
            on_progress=show,
            note=note,
        )
    note(f"run {run.location}: {end.done} of {end.total} units done, {end.failed} failed")
    if end.failed:
        say(f'see `dqf query {run.argument} "SELECT * FROM failures"`', err=True)
        raise typer.Exit(1)


def say_submitted(submission_id: str, run: str, address: str, *, waits: bool) -> None:
    """Print a submission's id and the commands that follow it; if it `waits`, follow it and exit as
    it ends."""
    say(f"submitted {submission_id} to {address}", err=True)
    word = shlex.quote(run)
    say(f"`dqf trace status {word}` shows how far it is", err=True)
    say(f"`dqf trace logs {word} --follow` follows it", err=True)
    say(f"`dqf trace stop {word}` stops it", err=True)
    say(submission_id)
    if waits:
        follow_to_end(address, submission_id)


def follow_to_end(address: str, submission_id: str) -> NoReturn:
    """Print a job's log to stderr as it comes, then exit with the job's exit code."""
    from jobs.cluster.submission import follow, job

    say(f"job {submission_id} at {address}", err=True)
    try:
        for line in follow(address, submission_id):
            say(line, err=True)
        ended = job(address, submission_id)
    except KeyboardInterrupt:
        say(f"job {submission_id} continues at {address}", err=True)
        raise typer.Exit(130) from None
    if ended.exit_code is None and ended.status != "SUCCEEDED":
        say_lines(f"job {submission_id}: {ended.status.lower()}: {ended.message}", err=True)
    raise typer.Exit(exit_code_of(ended))


def exit_code_of(ended: "Job") -> int:
    """Return the exit code of a job's end; like a shell, 128 + N for signal N."""
    if ended.exit_code is None:
        return 0 if ended.status == "SUCCEEDED" else 1
    return ended.exit_code if ended.exit_code >= 0 else 128 - ended.exit_code


def shared(path: Path | str) -> str:
    """Return the path by which a cluster's nodes find a shared folder: the absolute one."""
    return str(path) if "://" in str(path) else str(Path(path).absolute())


def shared_model(name: str | None) -> str | None:
    """Return a folder's absolute path; a name that dqf or the hub knows is returned unchanged."""
    from engine.model.registry import BUILT_IN, split_variant, with_variant

    if name is None:
        return None
    plain, variant = split_variant(name)
    is_ours = plain not in BUILT_IN and is_folder(plain)
    return with_variant(shared(plain), variant) if is_ours else name
