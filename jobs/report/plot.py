"""One figure of a run, in a notebook or as image files."""

import difflib
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import vl_convert
from pydantic import Field

from engine.files import prepare_output, write_whole
from jobs.query.noises import noise_text
from jobs.query.rank import Choice, check_choice
from jobs.query.select import opened_views
from jobs.report.figures.data import Row, read_figure_data
from jobs.report.figures.known import FIGURES, Figure, default_measure
from jobs.report.figures.panels import Panel, panels
from jobs.report.figures.tokens import caption_rows
from jobs.report.words import PARTS, choice_text, findings
from jobs.runs.trace_run import TraceRun
from schemas.caption import Caption
from schemas.caption_filter import EVERY_CAPTION, CaptionFilter
from schemas.documents import checked
from schemas.errors import PlanError
from schemas.intervention import Intervention

PIXELS_PER_INCH = 300
FORMATS = (".png", ".svg", ".pdf")
MOST_TITLE = 1000
"""Characters; a line of 50,000 takes minutes to draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """The request for a figure; None or () leaves a value to the run and the figure."""

    attributes: tuple[str, ...] = ()
    """One panel each."""
    part: str | None = None
    measure: str | None = None
    intervention: str | None = None
    patch: str | None = None
    """The kind of patch."""
    noise: float | None = None
    """In sigmas."""
    caption: str | None = None
    """The text of the only caption that is drawn."""
    title: str | None = None
    """The text above the figure, "" for no title; None: what is drawn."""
    top: Annotated[int, Field(ge=1)] | None = None
    """The number of states."""
    width: Annotated[int, Field(ge=100, le=4000)] | None = None
    """The width of a panel's plot in pixels, 96 per inch."""
    only: CaptionFilter = EVERY_CAPTION
    """The conditions on captions that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure of a run; a notebook shows it."""

    spec: dict[str, Any]
    """Its Vega-Lite specification, with its data."""

    @property
    def description(self) -> str:
        """Sentences that describe the figure."""
        return self.spec["description"]

    def save(self, path: str | Path) -> None:
        """Write it as .png of 300 dpi, .svg or .pdf; PlanError if the ending is another one, or if
        it cannot be written there."""
        write_whole(check_path(Path(path)), _rendered(self.spec, Path(path).suffix.lower()))

    @property
    def as_html(self) -> str:
        """The figure as SVG, with its description below."""
        caption = f"<figcaption>{html.escape(self.description)}</figcaption>"
        return f"<figure>{vl_convert.vegalite_to_svg(self.spec)}{caption}</figure>"

    def _repr_html_(self) -> str:
        return self.as_html


def check_path(path: Path) -> Path:
    """Return a path that a figure can be saved at; PlanError otherwise."""
    if path.suffix.lower() not in FORMATS:
        raise PlanError(f"{path}: figures are saved as {', '.join(FORMATS)}")
    prepare_output(path, error=PlanError)
    return path


def draw_figure(run: TraceRun, name: str, drawing: Drawing) -> Picture:
    """Return the figure `name` of a run.

    PlanError: there is no such figure, it ignores what the drawing asks for, the run lacks the
    chosen value, or it was not traced with what the figure needs.
    """
    drawing = checked(Drawing, drawing, error=PlanError)
    if name not in [*FIGURES]:
        raise PlanError(f"no figure {name!r}: there are {', '.join(FIGURES)}")
    if (length := len(drawing.title or "")) > MOST_TITLE:
        raise PlanError(f"a title has at most {MOST_TITLE} characters, not {length}")
    _check_used(name, drawing)
    figure, captions = FIGURES[name], _captions(run, drawing.caption)
    choices = _choices(run, drawing, captions)
    with opened_views(run, only=drawing.only) as views:
        rows = (
            caption_rows(views, captions)
            if drawing.caption
            else figure.rows(read_figure_data(views))
        )
    noise = noise_text(run, run.plan.numerics.sweep[0] if drawing.noise is None else drawing.noise)
    drawn = [_chosen(rows, choice, noise, figure.chosen_by) for choice in choices]
    if not all(drawn):
        lacking = choices[drawn.index([])].attribute
        raise PlanError(
            f"run {run.name} has nothing to draw in the figure {name!r} of {lacking!r}: it needs "
            f"{figure.needs}"
        )
    said = [next(iter(findings(name, chosen).values())) for chosen in drawn]
    spec = panels(
        [Panel(spec=figure.spec(chosen), title=_title(chosen[0], figure)) for chosen in drawn],
        title=drawing.title,
        width=drawing.width,
        top=drawing.top,
        shared_x=figure.shares_x,
    )
    return Picture(spec={**spec, "description": " ".join(said)})


def _check_used(name: str, drawing: Drawing) -> None:
    """Raise PlanError if the figure ignores an option that was given."""
    figure = FIGURES[name]
    given = {
        "attribute": drawing.attributes,
        "part": drawing.part,
        "measure": drawing.measure,
        "intervention": drawing.intervention,
        "patch": drawing.patch,
        "noise": drawing.noise,
        "caption": drawing.caption,
        "top": drawing.top,
        "width": drawing.width,
    }
    names = [re.sub("_(kind|sigmas)$", "", name) for name in figure.chosen_by]
    used = [*names, *figure.options]
    for option, value in given.items():
        if value and option not in used:
            raise PlanError(
                f"the figure {name!r} does not use --{option}: leave it out (it takes "
                f"{', '.join(f'--{one}' for one in used)})"
            )


def _captions(run: TraceRun, text: str | None) -> Sequence[Caption]:
    """Return the captions of a text, or all; PlanError if there is none."""
    captions = run.plan.captions
    found = [caption for caption in captions if text is None or caption.caption == text]
    if not found:
        texts = [caption.caption for caption in captions]
        nearest = difflib.get_close_matches(str(text), texts, n=1, cutoff=0)[0]
        raise PlanError(f"run {run.name} has no caption {text!r}: it has {nearest!r}, for one")
    return found


def _title(row: Row, figure: Figure) -> str:
    """Return the title of a figure: the choice that it shows."""
    choice = choice_text(row, figure.chosen_by)
    return f"{choice}: {row['caption']}" if figure.source == "words" else choice


def _choices(run: TraceRun, drawing: Drawing, captions: Sequence[Caption]) -> list[Choice]:
    """Return one choice per panel, with attribute and measure filled in; PlanError if the run
    lacks one."""
    choices = [
        Choice(
            attribute=attribute,
            part=drawing.part,
            measure=drawing.measure or default_measure(run.plan.measures),
            intervention=drawing.intervention or Intervention.RESTORE,
            patch_kind=drawing.patch or run.plan.patches[0],
            noise_sigmas=drawing.noise,
        )
        for attribute in dict.fromkeys(drawing.attributes or [captions[0].attribute])
    ]
    for choice in choices:
        check_choice(run, choice)
    return choices


def _chosen(rows: Sequence[Row], choice: Choice, noise: str, fields: Sequence[str]) -> list[Row]:
    """Return the rows of a choice; without a part, those of the first part that has rows."""
    wanted = {name: getattr(choice, name) for name in fields} | {"noise_sigmas": noise}
    for part in [choice.part] if choice.part else PARTS:
        wanted["part"] = part
        chosen = [row for row in rows if all(row[name] == wanted[name] for name in fields)]
        if chosen:
            return chosen
    return []


def _rendered(spec: dict[str, Any], suffix: str) -> bytes:
    if suffix == ".svg":
        return vl_convert.vegalite_to_svg(spec).encode()
    if suffix == ".pdf":
        return vl_convert.vegalite_to_pdf(spec)
    return vl_convert.vegalite_to_png(spec, ppi=PIXELS_PER_INCH)
