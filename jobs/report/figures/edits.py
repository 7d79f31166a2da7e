"""Figures of edits: what they erase and keep, and the trade-off among a sweep's settings."""

import altair as alt

from jobs.report.figures.parts import ROWS, Rows, by_field, ends
from jobs.report.figures.style import SERIES
from schemas.evaluation import Group
from schemas.results import HARMONIC, STILL_RECOGNISED

GROUPS = (HARMONIC, Group.KEPT.value, STILL_RECOGNISED)
"""The rows of an evaluation that sum it up; a lower `still_recognised` is better."""


def edits(rows: Rows) -> alt.TopLevelMixin:
    """Return each edit's share still recognized, share kept and harmonic mean."""
    base = (
        alt.Chart(alt.NamedData(name=ROWS))
        .transform_calculate(
            **ends("value"),
            interval="isValid(datum.low) ? format(datum.low, '.1%') + ' to ' + "
            "format(datum.high, '.1%') : 'none'",
        )
        .encode(
            y=alt.Y("edit:N", title=None, sort=by_field("place")),
            yOffset=alt.YOffset("group:N", sort=list(GROUPS)),
            color=alt.Color(
                "group:N",
                title=None,
                scale=alt.Scale(domain=list(GROUPS), range=["#7f7f7f", "#0072b2", "#d55e00"]),
                legend=alt.Legend(orient="top"),
            ),
            tooltip=[
                alt.Tooltip("edit:N", title="edit"),
                alt.Tooltip("group:N", title="group"),
                alt.Tooltip("value:Q", title="of images right before", format=".1%"),
                alt.Tooltip("interval:N", title="95 % interval"),
                alt.Tooltip("names:Q", title="names"),
                alt.Tooltip("images:Q", title="images"),
            ],
        )
    )
    x = alt.X(
        "value:Q",
        title="of images that the unedited model draws right",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format=".0%", tickCount=5),
    )
    shapes = alt.Scale(domain=list(GROUPS), range=["square", "circle", "diamond"])
    chart = alt.layer(
        base.mark_rule(strokeWidth=1.5).encode(x=alt.X("lower:Q", title=""), x2="upper:Q"),
        base.mark_point(filled=True, size=80, opacity=1).encode(
            x=x, shape=alt.Shape("group:N", title=None, scale=shapes)
        ),
    )
    step = alt.Step(16, **{"for": "offset"})
    return chart.properties(width="container", height=step)


def pareto(rows: Rows) -> alt.TopLevelMixin:
    """Return the edits of a sweep by the shares still recognized and kept, the best joined by a
    line."""
    base = alt.Chart(alt.NamedData(name=ROWS)).encode(
        x=alt.X(
            "still_recognised_of_right:Q",
            title="concepts that are still there (lower is better)",
            scale=alt.Scale(zero=False, padding=16),
            axis=alt.Axis(format=".0%", tickCount=6),
        ),
        y=alt.Y(
            "kept_of_right:Q",
            title="kept (higher is better)",
            scale=alt.Scale(zero=False, padding=16),
            axis=alt.Axis(format=".0%", tickCount=6),
        ),
    )
    best = base.transform_filter("datum.is_best")
    names = ["no other beats it", "beaten by another"]
    points = base.transform_calculate(
        verdict=f"datum.is_best ? '{names[0]}' : '{names[1]}'",
        interval="isValid(datum.harmonic_of_right_low) ? "
        "format(datum.harmonic_of_right_low, '.1%') + ' to ' + "
        "format(datum.harmonic_of_right_high, '.1%') : 'none'",
    ).mark_point(filled=True, size=110, opacity=1)
    points = points.encode(
        color=alt.Color(
            "verdict:N",
            title=None,
            scale=alt.Scale(domain=names, range=[SERIES[0], "#7f7f7f"]),
            legend=alt.Legend(orient="top"),
        ),
        shape=alt.Shape(
            "verdict:N", title=None, scale=alt.Scale(domain=names, range=["circle", "square"])
        ),
        tooltip=[
            alt.Tooltip("edit:N", title="edit"),
            alt.Tooltip("still_recognised_of_right:Q", title="still there", format=".1%"),
            alt.Tooltip("kept_of_right:Q", title="kept", format=".1%"),
            alt.Tooltip("harmonic_of_right:Q", title="harmonic mean", format=".1%"),
            alt.Tooltip("interval:N", title="95 % interval"),
            alt.Tooltip("cmmd:Q", title="CMMD", format=".4f"),
        ],
    )
    chart = alt.layer(
        best.mark_line(strokeWidth=1.5, color=SERIES[0]).encode(
            order="still_recognised_of_right:Q"
        ),
        points,
    )
    return chart.properties(width="container", height=320)
