"""`dqf doctor`: checks of a run, and its repair."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options.arguments import RunArgument
from cli.options.progress import with_progress_options
from cli.options.runs import run_location
from cli.printing.lines import say
from cli.printing.output import Format, FormatOption, print_rows
from cli.printing.progress import progress_bar

if TYPE_CHECKING:
    from jobs.doctor.examine import Report


@with_progress_options
def doctor(
    run: RunArgument,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Move damaged files to quarantine/, remove leftovers, end leftover processes.",
        ),
    ] = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Check a trace, an evaluation or an attack from its folder: are files and scores intact?

    States: ok, note (unusual, but every score counts once), wrong; exit code 1 if one is wrong.
    """
    from jobs.doctor.examine import examine

    location = run_location(run)
    with progress_bar("checking", "parts") as show:
        report = examine(location, show)
    if repair:
        _repair(run, report)
        with progress_bar("checking", "parts") as show:
            report = examine(location, show)
    print_rows([asdict(finding) for finding in report.findings], output_format)
    raise typer.Exit(0 if report.is_sound else 1)


def _repair(run: str, report: "Report") -> None:
    """Repair what can be repaired, and say on stderr what was done."""
    from jobs.cluster.processes import end_orphans
    from jobs.doctor.examine import repair
    from jobs.runs.kinds import open_any

    end_orphans()
    if not report.is_repairable:
        say("nothing was moved: plan.json must be repaired first", err=True)
        return
    opened = open_any(run_location(run))
    for line in repair(opened, report):
        say(line, err=True)
    say(f"{opened.resume_hint()} makes missing units again", err=True)
