"""One figure of a run as an image file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import vl_convert

from engine.files import prepare_output, write_whole
from jobs.query.rank import Choice, check_choice
from jobs.query.select import opened_views
from jobs.report.figures.data import Row, read_figure_data
from jobs.report.figures.known import FIGURES, default_measure
from jobs.report.figures.style import LIGHT, config
from jobs.report.words import PARTS, findings
from jobs.runs.trace_run import TraceRun
from schemas.errors import PlanError

WIDTH = 460
"""Width in pixels, 96 per inch, of a plot whose width does not follow from its rows."""
PIXELS_PER_INCH = 300
FORMATS = (".png", ".svg", ".pdf")


def plot_figure(run: TraceRun, name: str, choice: Choice, path: Path) -> str:
    """Write the figure `name` of a run to `path` and return a sentence that describes it.

    PlanError: the path's ending is not one of FORMATS, the run lacks the chosen value, or the run
    was not traced with what the figure needs.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise PlanError(f"{path}: figures are saved as {', '.join(FORMATS)}")
    prepare_output(path, error=PlanError)
    figure, whole = FIGURES[name], _complete(run, choice)
    with opened_views(run) as views:
        rows = figure.rows(read_figure_data(views))
    chosen = _chosen(rows, whole, figure.chosen_by)
    if not chosen:
        raise PlanError(
            f"run {run.name} has nothing to draw in the figure {name!r}: it needs {figure.needs}"
        )
    spec = figure.spec(chosen)
    (shows,) = findings(name, chosen).values()
    write_whole(path, _rendered(_for_paper(spec, shows), suffix))
    return shows


def _complete(run: TraceRun, choice: Choice) -> Choice:
    """Return the choice with its attribute and measure filled in; PlanError if the run lacks
    one."""
    complete = replace(
        choice,
        attribute=choice.attribute or run.plan.captions[0].attribute,
        measure=choice.measure or default_measure(run.plan.measures),
    )
    check_choice(run, complete)
    return complete


def _chosen(rows: Sequence[Row], choice: Choice, fields: Sequence[str]) -> list[Row]:
    """Return the rows of a choice; without a part, those of the first part that has rows."""
    for part in [choice.part] if choice.part else PARTS:
        of_part = replace(choice, part=part)
        chosen = [
            row for row in rows if all(row[name] == getattr(of_part, name) for name in fields)
        ]
        if chosen:
            return chosen
    return []


def _for_paper(spec: dict[str, Any], shows: str) -> dict[str, Any]:
    """Return a figure with a fixed width instead of its container's, in colors for paper."""
    width = WIDTH if spec.get("width") == "container" else spec["width"]
    return {**spec, "width": width, "config": config(LIGHT), "description": shows}


def _rendered(spec: dict[str, Any], suffix: str) -> bytes:
    if suffix == ".svg":
        return vl_convert.vegalite_to_svg(spec).encode()
    if suffix == ".pdf":
        return vl_convert.vegalite_to_pdf(spec)
    return vl_convert.vegalite_to_png(spec, ppi=PIXELS_PER_INCH)
