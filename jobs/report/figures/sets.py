"""How much components do together: curves over the size of a set, restored and corrupted."""

import altair as alt

from jobs.report.figures.parts import INTERVAL, ROWS, Rows, ends, key_below, zero
from jobs.report.figures.style import SERIES

DONE = {"restore": "restored together", "corrupt": "corrupted together"}
CHOSEN = {"top": "first of the ranking", "random": "random, same kinds", "greedy": "greedy"}
"""The names of curves in the legend."""


def set_curves(rows: Rows) -> alt.TopLevelMixin:
    """Return a chart of the share of the total effect over the number of components, with 95 %
    intervals; one line per curve and intervention."""
    done = [name for name in DONE if name in {row["intervention"] for row in rows}]
    chosen = [name for name in CHOSEN if name in {row["curve"] for row in rows}]
    base = (
        alt.Chart(alt.NamedData(name=ROWS))
        .transform_calculate(
            **ends("mean"),
            interval=INTERVAL,
            done=_named(DONE, done, "intervention"),
            chosen=_named(CHOSEN, chosen, "curve"),
        )
        .encode(
            x=alt.X(
                "size:Q",
                title="components together",
                axis=alt.Axis(tickMinStep=1, format="d", grid=False),
            ),
            color=alt.Color(
                "done:N",
                title=None,
                scale=alt.Scale(domain=[DONE[n] for n in done], range=list(SERIES[: len(done)])),
                legend=alt.Legend(orient="top"),
            ),
            tooltip=[
                alt.Tooltip("chosen:N", title="set"),
                alt.Tooltip("done:N", title="run"),
                alt.Tooltip("size:Q", title="components"),
                alt.Tooltip("mean:Q", title="of the total effect", format=".2f"),
                alt.Tooltip("interval:N", title="95 % interval"),
                alt.Tooltip("sets:Q", title="sets"),
                alt.Tooltip("captions:Q", title="captions"),
            ],
        )
    )
    y = alt.Y("mean:Q", title="share of the total effect")
    names = [CHOSEN[name] for name in chosen]
    shapes = dict(zip(CHOSEN.values(), ("circle", "square", "diamond"), strict=True))
    dashes = dict(zip(CHOSEN.values(), ([1, 0], [4, 3], [1, 0]), strict=True))
    intervals = base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("lower:Q", title=""), y2="upper:Q")
    lines = base.mark_line(strokeWidth=1.5, aria=False).encode(
        y=y,
        strokeDash=alt.StrokeDash(
            "chosen:N",
            legend=None,
            scale=alt.Scale(domain=names, range=[dashes[name] for name in names]),
        ),
    )
    points = base.mark_point(size=70, filled=True, opacity=1).encode(
        y=y,
        shape=alt.Shape(
            "chosen:N",
            title=None,
            legend=alt.Legend(orient="top"),
            scale=alt.Scale(domain=names, range=[shapes[name] for name in names]),
        ),
    )
    chart = alt.layer(zero(y=alt.datum(0)), zero(y=alt.datum(1)), intervals, lines, points)
    return chart.properties(
        width="container", height=260, title=key_below("dashed at 1: the whole total effect")
    )


def _named(names: dict[str, str], present: list[str], field: str) -> str:
    listed = ", ".join(f"'{name}': '{names[name]}'" for name in present)
    return f"{{{listed}}}[datum.{field}]"
