"""`dqf plot`: one figure of a run as a file for papers and slides."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.options.arguments import RunArgument
from cli.options.completion import attributes
from cli.options.panels import READING, choice
from cli.options.part import part_option
from cli.options.runs import run_location
from cli.printing.lines import say
from schemas.component import Part
from schemas.intervention import Intervention


class FigureName(StrEnum):
    """The figures of a run."""

    NETWORK = "network"
    RANKING = "ranking"
    TIMESTEPS = "timesteps"
    TOKENS = "tokens"
    CONTROLS = "controls"
    OVERLAPS = "overlaps"


def plot(
    run: RunArgument,
    figure: Annotated[
        FigureName, typer.Option(metavar="FIGURE", help=f"The figure: {', '.join(FigureName)}.")
    ],
    out: Annotated[Path, typer.Option(help="File to write: .png (300 dpi), .svg or .pdf.")],
    attribute: Annotated[
        str | None,
        typer.Option(help="Attribute.", show_default="the run's first", autocompletion=attributes),
    ] = None,
    part: Annotated[
        Part | None, part_option("Part", default="the first that has the figure")
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(help="Measure.", show_default="target, otherwise the run's first"),
    ] = None,
    intervention: Annotated[
        Intervention,
        choice("Kind of patched runs", Intervention, panel=READING, metavar="INTERVENTION"),
    ] = Intervention.RESTORE,
) -> None:
    """Save a figure of a run's report as a file, and describe it on stderr."""
    from jobs.query.rank import Choice
    from jobs.report.plot import plot_figure
    from jobs.runs.trace_run import open_run

    choice = Choice(
        attribute=attribute,
        part=part.value if part else None,
        measure=measure,
        intervention=intervention.value,
    )
    shows = plot_figure(open_run(run_location(run)), figure.value, choice, out)
    say(shows, err=True)
    say(out)
