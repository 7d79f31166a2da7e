"""The figures of a run by name: which rows each is drawn of, and saving one to a file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from jobs.figure_data import FigureData, Row
from jobs.figure_style import LIGHT, config
from jobs.figures_maps import overlaps, timesteps, tokens
from jobs.figures_network import network
from jobs.figures_ranking import controls, ranking
from schemas.errors import PlanError

WIDTH = 460
"""Pixels of a saved figure's axis, a column and a half of a paper, where it can be chosen."""
PIXELS_PER_INCH = 300
FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a figure shows; None is any."""

    attribute: str | None = None
    part: str | None = None
    against: str | None = None
    intervention: str | None = None

    def holds(self, row: Row, *fields: str) -> bool:
        """Return whether a row is of this choice, by these fields."""
        return all(getattr(self, name) in (None, row[name]) for name in fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One kind of figure."""

    title: str
    draw: Callable[[Sequence[Row]], alt.TopLevelMixin]
    source: str
    """The field of `FigureData` that has its rows."""
    where: str | None
    """A field that is None in rows which are not for it; every row is if None."""
    chosen_by: tuple[str, ...]
    """The fields of a `Choice` that it goes by."""
    needs: str
    """What a run must have been traced with to have such rows."""

    def rows(self, data: FigureData) -> list[Row]:
        """Return all rows that the figure may show."""
        rows: list[Row] = getattr(data, self.source)
        return [row for row in rows if self.where is None or row[self.where] is not None]


ANY_STATE = ("attribute", "part", "against", "intervention")
FIGURES = {
    "network": Figure(
        title="The network",
        draw=network,
        source="states",
        where="main",
        chosen_by=ANY_STATE,
        needs="scores of this choice",
    ),
    "ranking": Figure(
        title="Ranking",
        draw=ranking,
        source="states",
        where=None,
        chosen_by=ANY_STATE,
        needs="scores of this choice",
    ),
    "timesteps": Figure(
        title="Components and denoising steps",
        draw=timesteps,
        source="states",
        where="window",
        chosen_by=ANY_STATE,
        needs="several windows of steps (--window each, say)",
    ),
    "tokens": Figure(
        title="Layers and tokens",
        draw=tokens,
        source="tokens",
        where=None,
        chosen_by=ANY_STATE,
        needs="the text encoder at several tokens (--token words, say)",
    ),
    "controls": Figure(
        title="Controls",
        draw=controls,
        source="states",
        where="controlled",
        chosen_by=("attribute", "part", "against"),
        needs="controls (--intervention other-seed or other-caption beside restore)",
    ),
    "overlaps": Figure(
        title="Attributes that share components",
        draw=overlaps,
        source="overlaps",
        where=None,
        chosen_by=("part", "against"),
        needs="two attributes with causal states",
    ),
}
"""The figures of a run in the order of its report."""


def chosen_rows(data: FigureData, name: str, choice: Choice) -> list[Row]:
    """Return the rows of a figure; PlanError if the run has none."""
    figure = FIGURES[name]
    rows = [row for row in figure.rows(data) if choice.holds(row, *figure.chosen_by)]
    if not rows:
        raise PlanError(f"there is nothing to draw: the figure {name!r} needs {figure.needs}")
    return rows


def save_figure(name: str, rows: Sequence[Row], path: Path) -> None:
    """Write a figure as PNG, SVG or PDF by the ending of `path`; PlanError: another ending."""
    if path.suffix.lower() not in FORMATS:
        raise PlanError(f"{path}: figures are saved as {', '.join(FORMATS)}")
    path.write_bytes(_rendered(_fixed(FIGURES[name].draw(rows).to_dict()), path.suffix.lower()))


def _fixed(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a figure with a width of its own, not its container's, and colours for paper."""
    width = WIDTH if spec.get("width") == "container" else spec["width"]
    return {**spec, "width": width, "config": config(LIGHT)}


def _rendered(spec: dict[str, Any], suffix: str) -> bytes:
    if suffix == ".svg":
        return vl_convert.vegalite_to_svg(spec).encode()
    if suffix == ".pdf":
        return vl_convert.vegalite_to_pdf(spec)
    return vl_convert.vegalite_to_png(spec, ppi=PIXELS_PER_INCH)
