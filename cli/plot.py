"""`dqf plot`: one figure of a run as a file for papers and slides."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.options.arguments import RunArgument
from cli.options.captions import KnownOption, MinTotalEffectOption, caption_filter
from cli.options.completion import attributes
from cli.options.panels import READING, choice, option
from cli.options.part import part_option
from cli.options.runs import run_location
from cli.printing.answers import say_unscored
from cli.printing.lines import say
from schemas.component import Part
from schemas.intervention import Intervention, PatchKind


class FigureName(StrEnum):
    """The figures of a run."""

    NETWORK = "network"
    RANKING = "ranking"
    TIMESTEPS = "timesteps"
    TOKENS = "tokens"
    WORDS = "words"
    DEPTH = "depth"
    CONTROLS = "controls"
    SETS = "sets"
    OVERLAPS = "overlaps"


def plot(
    run: RunArgument,
    figure: Annotated[
        FigureName, typer.Option(metavar="FIGURE", help=f"The figure: {', '.join(FigureName)}.")
    ],
    out: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE", help="File to write: .png (300 dpi), .svg or .pdf; repeatable."
        ),
    ],
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ATTRIBUTE",
            help="Attribute; repeatable, for one panel each.",
            show_default="the run's first",
            autocompletion=attributes,
        ),
    ] = None,
    part: Annotated[
        Part | None, part_option("Part", default="the first that has the figure")
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            help="Measure of the effects.", show_default="target, otherwise the run's first"
        ),
    ] = None,
    intervention: Annotated[
        Intervention | None,
        choice(
            "Intervention that is shown",
            Intervention,
            panel=READING,
            metavar="INTERVENTION",
            default="restore",
        ),
    ] = None,
    patch: Annotated[
        PatchKind | None,
        choice(
            "Kind of patch", PatchKind, panel=READING, metavar="PATCH", default="the run's first"
        ),
    ] = None,
    noise: Annotated[
        float | None,
        option(
            "Noise that is shown, in standard deviations of the embeddings.",
            panel=READING,
            default="the run's first",
        ),
    ] = None,
    caption: Annotated[
        str | None,
        typer.Option(help="Text of the caption in `words`.", show_default="the attribute's first"),
    ] = None,
    title: Annotated[
        str | None,
        typer.Option(help="Title; '' for none.", show_default="what is drawn"),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Number of states.", show_default="20")
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            min=100, max=4000, help="Width of a plot in pixels, 96 per inch.", show_default="460"
        ),
    ] = None,
    known: KnownOption = None,
    min_te: MinTotalEffectOption = None,
) -> None:
    """Save a figure of a run's report in one or more files, and describe it on stderr.

    An option that the figure does not use is an error.
    """
    from jobs.report.plot import Drawing, check_path, draw_figure
    from jobs.runs.trace_run import open_run

    for path in out:
        check_path(path)
    opened = open_run(run_location(run))
    say_unscored(opened)
    only = caption_filter(opened, known, min_te)
    drawing = Drawing(
        attributes=tuple(attribute or ()),
        part=part.value if part else None,
        measure=measure,
        intervention=intervention.value if intervention else None,
        patch=patch.value if patch else None,
        noise=noise,
        caption=caption,
        title=title,
        top=top,
        width=width,
        only=only,
    )
    picture = draw_figure(opened, figure.value, drawing)
    for path in out:
        picture.save(path)
    say(picture.description, err=True)
    if only:
        say(f"Only captions with {only} are read.", err=True)
    for path in out:
        say(path)
