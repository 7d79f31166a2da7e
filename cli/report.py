"""`dqf report`: the results of a run and of edits in one page."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options.arguments import OptionalRunArgument
from cli.options.captions import KnownOption, MinTotalEffectOption, caption_filter
from cli.options.completion import edits
from cli.options.edits import edit_folder
from cli.options.home import edits_folder, runs_folder
from cli.options.runs import run_location
from cli.printing.lines import say

INDEX = "reports.html"
"""The default name of the index of all runs and edits."""


def report(
    run: OptionalRunArgument = None,
    edit: Annotated[
        list[Path] | None,
        typer.Option(
            parser=edit_folder,
            metavar="EDIT",
            autocompletion=edits,
            help="Name or folder of an edit, or folder of a sweep; repeatable.",
        ),
    ] = None,
    known: KnownOption = None,
    min_te: MinTotalEffectOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write.",
            show_default=f"report.html in the run's folder, {INDEX} next to runs/ with --all",
        ),
    ] = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="Write an index of all runs and edits instead of a report."),
    ] = False,
) -> None:
    """Write the report of a trace, evaluation or attack as one HTML file, which needs no network.

    The report of a trace has the answer in words with its uncertainty, the network colored by
    effect, maps of steps and tokens, rankings, controls, images, edits, failures and the manifest;
    that of an evaluation or attack has the answers of its example queries. The command prints the
    file's path. With `--all` it writes an index of the runs under runs/ and the edits under edits/:
    what each found, with links to their reports.
    """
    if every:
        given = {"RUN": run, "--edit": edit, "--known": known, "--min-te": min_te}
        if unused := [name for name, value in given.items() if value is not None]:
            raise typer.BadParameter(f"{unused[0]} has no use with --all: leave one of them out")
        _index(out or runs_folder().parent / INDEX)
    elif run is None:
        raise typer.BadParameter("name a run, or give --all for an index of all")
    else:
        _report(run, edit or [], known, min_te, out)


def _index(path: Path) -> None:
    """Write the index of all runs and edits and print its path."""
    from engine.files import prepare_output
    from jobs.report.index import write_index
    from schemas.errors import StoreError

    prepare_output(path, error=StoreError)
    entries = write_index(runs_folder(), edits_folder(), path)
    unread = sum(bool(entry.problem) for entry in entries)
    note = f", {unread} of which cannot be read" if unread else ""
    say(f"index of {len(entries)} runs and edits{note}", err=True)
    say(path)


def _report(
    run: str, edit: list[Path], known: str | None, min_te: float | None, out: Path | None
) -> None:
    """Write the report of one run, of any kind, and print its path."""
    from engine.files import check_writable, prepare_output
    from jobs.report.questions import write_questions
    from jobs.report.write import write_report
    from jobs.runs.kinds import open_any
    from jobs.runs.trace_run import TraceRun
    from schemas.errors import StoreError

    location = run_location(run)
    opened = open_any(location)
    if not isinstance(opened, TraceRun) and (edit or known is not None or min_te is not None):
        raise typer.BadParameter(f"--edit, --known and --min-te are for traces, not {opened.noun}s")
    place = out or _place(location)
    # The run's own report is the only file that this command writes into a run's folder.
    if place.absolute() == _place(location).absolute():
        check_writable(place, error=StoreError)
    else:
        prepare_output(place, error=StoreError)
    if isinstance(opened, TraceRun):
        only = caption_filter(opened, known, min_te)
        size = write_report(opened, edit, place, only=only).bytes
    else:
        size = write_questions(opened, place)
    say(f"report of {opened.name}: {size / 1e6:.1f} MB, opens offline", err=True)
    say(place)


def _place(location: str) -> Path:
    """Return the path of a run's report: in its folder, or here if the run is in a bucket."""
    if "://" in location:
        return Path(f"{location.rstrip('/').rsplit('/', 1)[-1]}.html")
    return Path(location, "report.html")
