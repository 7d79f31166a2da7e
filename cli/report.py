"""`dqf report`: the results of a run and of edits in one page."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options.arguments import RunArgument
from cli.options.captions import KnownOption, MinTotalEffectOption, caption_filter
from cli.options.completion import edits
from cli.options.edits import edit_folder
from cli.options.runs import run_location
from cli.printing.lines import say


def report(
    run: RunArgument,
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
        typer.Option(help="File to write.", show_default="report.html in the run's folder"),
    ] = None,
) -> None:
    """Write the report of a run as one HTML file, which needs no network.

    The report has the answer in words with its uncertainty, the network colored by effect, maps of
    steps and tokens, rankings, controls, images, edits, failures and the manifest. The command
    prints the file's path.
    """
    from engine.files import check_writable, prepare_output
    from jobs.report.write import write_report
    from jobs.runs.trace_run import open_run
    from schemas.errors import StoreError

    location = run_location(run)
    opened = open_run(location)
    only = caption_filter(opened, known, min_te)
    place = out or _place(location)
    # The run's own report is the only file that this command writes into a run's folder.
    if place.absolute() == _place(location).absolute():
        check_writable(place, error=StoreError)
    else:
        prepare_output(place, error=StoreError)
    written = write_report(opened, edit or [], place, only=only)
    say(f"report of {opened.name}: {written.bytes / 1e6:.1f} MB, opens offline", err=True)
    say(written.path)


def _place(location: str) -> Path:
    """Return the path of a run's report: in its folder, or here if the run is in a bucket."""
    if "://" in location:
        return Path(f"{location.rstrip('/').rsplit('/', 1)[-1]}.html")
    return Path(location, "report.html")
