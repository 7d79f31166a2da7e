"""The effect of all that passes a layer, layer by layer: one line per stream."""

import altair as alt

from jobs.report.figures.parts import (
    FILLED,
    Rows,
    effects,
    key_below,
    kind_scale,
    signed_axis,
    survival,
    tooltips,
    zero,
)


def depth(rows: Rows) -> alt.TopLevelMixin:
    """Return a chart of mean effects over the layers, with 95 % intervals as bands.

    A filled point marks a state that survives.
    """
    scale = kind_scale(rows)
    base = effects().encode(
        x=alt.X("depth:Q", title="layer", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
        tooltip=tooltips(("component", "component"), ("kind", "kind"), ("token", "token")),
    )
    # Without this legend Vega-Lite would leave out that of the points too.
    color = alt.Color("kind:N", title=None, scale=scale, legend=alt.Legend(orient="top"))
    y = alt.Y("mean:Q", title="mean indirect effect", axis=signed_axis())
    bands = base.mark_area(opacity=0.2, aria=False).encode(
        y=alt.Y("lower:Q", title=""), y2="upper:Q", color=color, detail="module:N"
    )
    lines = base.mark_line(strokeWidth=1.5, aria=False).encode(y=y, color=color, detail="module:N")
    points = base.mark_point(size=70, strokeWidth=2, opacity=1).encode(y=y, **survival(scale))
    chart = alt.layer(zero(y=alt.datum(0)), bands, lines, points)
    return chart.properties(width="container", height=260, title=key_below(FILLED))
