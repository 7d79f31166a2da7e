"""Figures of effects with their intervals: rankings, and restoring compared with its controls."""

import altair as alt

from jobs.report.figures.parts import (
    FILLED,
    TOP,
    Rows,
    by_field,
    effect_axis,
    effects,
    key_below,
    kind_scale,
    survival,
    tooltips,
    zero,
)
from jobs.report.figures.style import SERIES

RANKED = 20
"""The number of states in the figure, unless its parameter TOP says another."""
RUNS = {
    "restore": "restored",
    "other-seed": "control: same caption, other seed",
    "other-caption": "control: unrelated caption",
    "other-draw": "control: same caption, other noise",
    "matched": "control: the counterfactual",
}
"""The names of restoring and of its controls in the legend."""


def ranking(rows: Rows) -> alt.TopLevelMixin:
    """Return a chart of the states with the largest mean effects, the largest on top, with 95 %
    intervals."""
    scale = kind_scale(rows)
    top = (
        effects()
        .transform_window(place="row_number()", sort=[alt.SortField("mean", order="descending")])
        .transform_filter(f"datum.place <= {TOP}")
        .encode(
            y=alt.Y("state:N", title=None, sort=by_field("place")),
            tooltip=tooltips(("component", "component"), ("kind", "kind"), ("token", "token")),
        )
    )
    intervals = top.mark_rule(style="interval").encode(x=alt.X("lower:Q", title=""), x2="upper:Q")
    points = top.mark_point(size=95, strokeWidth=2, opacity=1).encode(
        x=effect_axis(), **survival(scale)
    )
    chart = alt.layer(zero(x=alt.datum(0)), intervals, points).add_params(
        alt.param(name=TOP, value=RANKED)
    )
    return chart.properties(width="container", height=alt.Step(22), title=key_below(FILLED))


def controls(rows: Rows) -> alt.TopLevelMixin:
    """Return a chart of the leading states, restored from the clean run and from controls.

    An effect that `other-caption` has too is not the attribute's; one that `other-seed` lacks was
    the layout of this image.
    """
    traced = [name for name in RUNS if name in {row["intervention"] for row in rows}]
    colors = alt.Scale(domain=[RUNS[name] for name in traced], range=list(SERIES[: len(traced)]))
    shapes = alt.Scale(
        domain=[RUNS[name] for name in traced], range=["circle", "diamond", "square"]
    )
    names = "{" + ", ".join(f"'{name}': '{RUNS[name]}'" for name in traced) + "}"
    base = (
        effects()
        .transform_calculate(run=f"{names}[datum.intervention]")
        .encode(
            y=alt.Y("state:N", title=None, sort=by_field("controlled")),
            yOffset=alt.YOffset("run:N", sort=[RUNS[name] for name in traced]),
            color=alt.Color(
                "run:N", title=None, scale=colors, legend=alt.Legend(orient="top", columns=1)
            ),
            tooltip=tooltips(("run", "run"), ("component", "component")),
        )
    )
    intervals = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("lower:Q", title=""), x2="upper:Q")
    points = base.mark_point(size=60, filled=True, opacity=1).encode(
        x=effect_axis(), shape=alt.Shape("run:N", title=None, scale=shapes)
    )
    chart = alt.layer(zero(x=alt.datum(0)), intervals, points)
    step = alt.Step(11, **{"for": "offset"})
    return chart.properties(width="container", height=step)
