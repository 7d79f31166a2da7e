"""The figures of a run by name, and the rows that each of them draws."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from jobs.report.figures.data import GROUP, FigureData, Row
from jobs.report.figures.depth import depth
from jobs.report.figures.maps import overlaps, timesteps, tokens, words
from jobs.report.figures.network import network
from jobs.report.figures.parts import spec_of
from jobs.report.figures.ranking import controls, ranking
from jobs.report.figures.sets import set_curves


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One kind of figure."""

    title: str
    draw: Callable[[Sequence[Row]], alt.TopLevelMixin]
    source: str
    """The field of `FigureData` that has its rows."""
    where: str | None
    """A field that is None in rows that the figure does not draw; None: it draws every row."""
    chosen_by: tuple[str, ...]
    """The fields by which a reader chooses the figure's rows."""
    options: tuple[str, ...] = ()
    """The options of `dqf plot` that it takes besides those that choose its rows."""
    shares_x: bool = False
    """Whether panels of it have one horizontal axis."""
    needs: str
    """The options of a trace that gives such rows, in words."""

    def rows(self, data: FigureData) -> list[Row]:
        """Return all rows that the figure may show."""
        rows: list[Row] = getattr(data, self.source)
        return [row for row in rows if self.where is None or row[self.where] is not None]

    def spec(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the figure of these rows as a Vega-Lite specification."""
        return spec_of(self.draw, rows)


FIGURES = {
    "network": Figure(
        title="The network",
        draw=network,
        source="states",
        where="main",
        chosen_by=GROUP,
        needs="scores of this choice",
    ),
    "ranking": Figure(
        title="Ranking",
        draw=ranking,
        source="states",
        where=None,
        chosen_by=GROUP,
        options=("top", "width"),
        shares_x=True,
        needs="scores of this choice",
    ),
    "timesteps": Figure(
        title="Components and denoising steps",
        draw=timesteps,
        source="states",
        where="window",
        chosen_by=GROUP,
        options=("width",),
        needs="several windows of steps (--window each, say)",
    ),
    "tokens": Figure(
        title="Layers and tokens",
        draw=tokens,
        source="tokens",
        where=None,
        chosen_by=GROUP,
        options=("width",),
        needs="the text encoder at several tokens (--token words, say)",
    ),
    "words": Figure(
        title="Layers and the words of one caption",
        draw=words,
        source="words",
        where=None,
        chosen_by=GROUP,
        options=("caption", "width"),
        needs="the text encoder at single tokens (--token words, say)",
    ),
    "depth": Figure(
        title="Depth",
        draw=depth,
        source="states",
        where="depth",
        chosen_by=GROUP,
        options=("width",),
        needs="streams or whole layers (--kind stream_text or --kind layer, say)",
    ),
    "controls": Figure(
        title="Controls",
        draw=controls,
        source="states",
        where="controlled",
        chosen_by=("attribute", "part", "measure", "patch_kind", "noise_sigmas"),
        options=("width",),
        shares_x=True,
        needs="controls (--intervention other-seed or other-caption, besides restore)",
    ),
    "sets": Figure(
        title="Components together",
        draw=set_curves,
        source="curves",
        where="mean",
        chosen_by=("attribute", "part", "measure", "patch_kind", "noise_sigmas"),
        options=("width",),
        shares_x=True,
        needs="sets that `dqf trace sets RUN` chose, and a total effect",
    ),
    "overlaps": Figure(
        title="Attributes that share components",
        draw=overlaps,
        source="overlaps",
        where="jaccard",
        chosen_by=("part", "measure", "patch_kind", "noise_sigmas"),
        needs="two attributes with causal states",
    ),
}
"""The figures of a run in the order of its report."""


def default_measure(measures: Sequence[str]) -> str:
    """Return the measure that is shown first: `target` if it was scored."""
    return "target" if "target" in measures else measures[0]
