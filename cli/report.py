"""`dqf report`: what a run found, and what edits did, in one page."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options.runs import RunArgument, run_location
from cli.printing.lines import say


def report(
    run: RunArgument,
    edit: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of an edit or of a sweep, may be given again."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write; report.html in the run's folder if none.")
    ] = None,
) -> None:
    """Write a report of a run as one HTML file, which needs no network.

    The answer in words with its uncertainty, the network colored by effect, maps of steps and
    tokens, rankings, controls, images, edits, failures and the manifest. Prints the file's path.
    """
    from engine.files import check_writable, prepare_output
    from jobs.report.write import write_report
    from jobs.runs.trace_run import open_run
    from schemas.errors import StoreError

    location = run_location(run)
    opened = open_run(location)
    place = out or _place(location)
    # Its own report is the one file that a run's folder gets from here.
    if place.absolute() == _place(location).absolute():
        check_writable(place, error=StoreError)
    else:
        prepare_output(place, error=StoreError)
    written = write_report(opened, edit or [], place)
    say(f"report of {opened.name}: {written.bytes / 1e6:.1f} MB, opens offline", err=True)
    say(written.path)


def _place(location: str) -> Path:
    """Return where a run's report goes: into its folder, or here if it is in a bucket."""
    if "://" in location:
        return Path(f"{location.rstrip('/').rsplit('/', 1)[-1]}.html")
    return Path(location, "report.html")
