"""Heat maps: components by window of steps, by place in the caption, and attribute by attribute."""

import altair as alt

from jobs.report.figures.parts import (
    ROWS,
    Rows,
    bound_parameter,
    by_field,
    effect_color,
    effects,
    key_below,
    legible_on,
    tooltips,
)

CELL = 72
"""The width of a cell of attributes, in pixels."""
MARKED = """isValid(datum.survives) ? datum.survives === 'yes'
  : isValid(datum.low) && datum.low > 0"""
"""The condition on which a cell is marked; places in a caption have intervals, but no tests."""
UNTESTED = "dot: the 95 % interval lies above zero (each cell by itself, no correction)"
START = "split(datum.value, ':')[0]"
# A window of one step is named by its step.
WINDOW_LABEL = f"split(datum.value, ':')[1] - {START} == 1 ? {START} : datum.value"


def timesteps(rows: Rows) -> alt.TopLevelMixin:
    """Return a map of effects by component, in the network's order, and window of steps."""
    x = alt.X(
        "steps:N",
        title="denoising steps of the window, the noisiest first",
        sort=by_field("window"),
        axis=alt.Axis(labelExpr=WINDOW_LABEL, labelAngle=0, labelOverlap=True, ticks=False),
    )
    return _map(rows, x, ("component", "component"), ("kind", "kind"), ("token", "token"))


def tokens(rows: Rows) -> alt.TopLevelMixin:
    """Return a map of effects by component of the text encoder and place in the caption."""
    x = alt.X(
        "place:N",
        title="token, counted from the subject's last one",
        sort=by_field("place_order"),
        axis=alt.Axis(labelAngle=-45, ticks=False),
    )
    return _map(rows, x, ("component", "component"), ("place", "place"), ("text", "most often"))


def words(rows: Rows) -> alt.TopLevelMixin:
    """Return a map of effects by component of the text encoder and word of one caption."""
    x = alt.X(
        "word:N",
        title="the caption's tokens (* the subject's last)",
        sort=by_field("place_order"),
        axis=alt.Axis(
            labelAngle=-45,
            ticks=False,
            labelExpr="substring(datum.value, indexof(datum.value, '|') + 1)",
        ),
    )
    return _map(rows, x, ("component", "component"), ("text", "token"))


def _map(rows: Rows, x: alt.X, *hover: tuple[str, str]) -> alt.TopLevelMixin:
    components = len({row["component"] for row in rows})
    base = effects().encode(
        x=x,
        y=alt.Y("label:N", title=None, sort=by_field("order"), axis=alt.Axis(ticks=False)),
        tooltip=tooltips(*hover),
    )
    cells = base.mark_rect(style="cell").encode(color=effect_color())
    dots = base.mark_point(size=14, filled=True, aria=False).encode(
        color=legible_on("mean"),
        opacity=alt.when(MARKED).then(alt.value(1)).otherwise(alt.value(0)),
    )
    tested = any(row.get("survives") for row in rows)
    return (
        alt.layer(cells, dots)
        .add_params(bound_parameter(rows))
        .properties(
            width="container",
            height=alt.Step(26 if components <= 16 else 17),
            title=key_below("dot: survives" if tested else UNTESTED),
        )
    )


def overlaps(rows: Rows) -> alt.TopLevelMixin:
    """Return a map of the Jaccard index of every two attributes' causal states."""
    chart = (
        alt.Chart(alt.NamedData(name=ROWS))
        .transform_calculate(
            interval="isValid(datum.jaccard_low) ? format(datum.jaccard_low, '.2f') + ' to ' + "
            "format(datum.jaccard_high, '.2f') : 'none'",
        )
        .encode(
            x=alt.X(
                "attribute_a:N",
                title=None,
                axis=alt.Axis(labelAngle=0, ticks=False, labelLimit=CELL),
            ),
            y=alt.Y("attribute_b:N", title=None, axis=alt.Axis(ticks=False)),
            tooltip=[
                alt.Tooltip("attribute_a:N", title="attribute"),
                alt.Tooltip("num_a:Q", title="its causal states"),
                alt.Tooltip("attribute_b:N", title="other attribute"),
                alt.Tooltip("num_b:Q", title="its causal states "),
                alt.Tooltip("num_both:Q", title="of both"),
                alt.Tooltip("jaccard:Q", title="Jaccard index", format=".2f"),
                alt.Tooltip("interval:N", title="95 % interval"),
            ],
        )
    )
    cells = chart.mark_rect(style="cell").encode(
        color=alt.Color(
            "jaccard:Q",
            title="Jaccard index",
            scale=alt.Scale(domain=[0, 1], range="heatmap", interpolate="lab"),
            legend=alt.Legend(orient="top", gradientLength=140, format=".1f", tickCount=3),
        ),
    )
    texts = chart.mark_text(aria=False).encode(
        text=alt.Text("jaccard:Q", format=".2f"), color=legible_on("jaccard")
    )
    side = alt.Step(64)
    return alt.layer(cells, texts).properties(width=side, height=alt.Step(40))
