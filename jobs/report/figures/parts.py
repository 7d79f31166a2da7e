"""Pieces that several figures share: data, hover values, the scale of effects."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

from jobs.report.figures.style import KIND_COLORS

Rows = Sequence[dict[str, Any]]

ROWS = "rows"
"""The name of a figure's data, which the report's page replaces by other rows."""
BOUND = "bound"
"""The name of the parameter for the end of the scale of effects; the page sets it too."""
TOP = "top"
"""The name of the parameter for the number of states in a ranking."""
FILLED = "filled: survives; hollow: does not"
NO_INTERVAL = "none: a single caption"
INTERVAL = f"""isValid(datum.low) && isValid(datum.high)
  ? format(datum.low, '+.4f') + ' to ' + format(datum.high, '+.4f') : '{NO_INTERVAL}'"""
Q_VALUE = "!isValid(datum.q) ? 'none' : datum.q < 0.0001 ? '< 0.0001' : format(datum.q, '.4f')"
# A state without an interval has its mean at both ends.
FROM = "isValid(datum.low) ? datum.low : datum.{mean}"
TO = "isValid(datum.high) ? datum.high : datum.{mean}"
UNDEFINED_SHARE = "undefined: total effect too near zero"
RECOVERY = f"isValid(datum.recovery) ? format(datum.recovery, '.0%') : '{UNDEFINED_SHARE}'"


def spec_of(draw: Callable[[Rows], alt.TopLevelMixin], rows: Rows) -> dict[str, Any]:
    """Return a figure of rows as a Vega-Lite specification."""
    # Altair's checks take seconds, as they visit every value of the rows: the tests check instead.
    with debug_mode(False):
        spec = draw(rows).to_dict(validate=False)
    return {**spec, "datasets": {**spec.get("datasets", {}), ROWS: list(rows)}}


def ends(mean: str) -> dict[str, str]:
    """Return the formulas for the ends of the drawn interval of the field `mean`."""
    return {"lower": FROM.format(mean=mean), "upper": TO.format(mean=mean)}


def effects() -> alt.Chart:
    """Return a chart of effects with the texts of its hover values."""
    return alt.Chart(alt.NamedData(name=ROWS)).transform_calculate(
        **ends("mean"), interval=INTERVAL, q_text=Q_VALUE, recovery_text=RECOVERY
    )


def tooltips(*first: tuple[str, str]) -> list[alt.Tooltip]:
    """Return the hover values of an effect: these fields with their titles, then its numbers."""
    texts = (*first, ("steps", "steps"))
    return [
        *(alt.Tooltip(f"{field}:N", title=title) for field, title in texts),
        alt.Tooltip("mean:Q", title="mean indirect effect", format="+.4f"),
        alt.Tooltip("interval:N", title="95 % interval"),
        alt.Tooltip("q_text:N", title="q-value"),
        alt.Tooltip("recovery_text:N", title="of the total effect"),
        alt.Tooltip("captions:Q", title="captions"),
        alt.Tooltip("survives:N", title="survives"),
    ]


def bound_of(rows: Rows) -> float:
    """Return the end of a scale centered at zero that covers all effects."""
    return max((abs(row["mean"]) for row in rows), default=0.0) or 1.0


def bound_parameter(rows: Rows) -> alt.Parameter:
    """Return the parameter BOUND of a figure of these rows."""
    return alt.param(name=BOUND, value=bound_of(rows))


def effect_color(*, legend: bool = True) -> alt.Color:
    """Return the color of a mean effect: diverging, with zero in the middle."""
    return alt.Color(
        "mean:Q",
        title="mean indirect effect",
        scale=alt.Scale(
            domainMin=alt.ExprRef(f"-{BOUND}"),
            domainMax=alt.ExprRef(BOUND),
            domainMid=0,
            range="diverging",
            interpolate="lab",
        ),
        legend=alt.Legend(
            orient="top",
            gradientLength=180,
            values=alt.ExprRef(f"[-{BOUND}, 0, {BOUND}]"),
            labelExpr="datum.value === 0 ? '0' : format(datum.value, '+.2r')",
        )
        if legend
        else None,
    )


def legible_on(field: str) -> Any:
    """Return black or white, whichever has more contrast with the color of a field.

    Both contrasts are 4.58 where the luminance is 0.179 (WCAG 2.2), and one is higher elsewhere.
    """
    is_light = f"luminance(scale('color', datum.{field})) > 0.179"
    return alt.when(is_light).then(alt.value("black")).otherwise(alt.value("white"))


def key_below(*lines: str) -> alt.TitleParams:
    """Return the lines below a figure that explain its marks."""
    return alt.TitleParams(
        list(lines), orient="bottom", anchor="start", fontSize=12, fontWeight="normal", offset=12
    )


def kind_scale(rows: Rows) -> alt.Scale:
    """Return the colors of the kinds of components in the rows."""
    present = {row["kind"] for row in rows}
    kinds = [kind for kind in KIND_COLORS if kind in present]
    return alt.Scale(domain=kinds, range=[KIND_COLORS[kind] for kind in kinds])


def survival(scale: alt.Scale) -> dict[str, Any]:
    """Return the colors of points by kind: filled for a state that survives, otherwise hollow."""
    return {
        "stroke": alt.Stroke("kind:N", title=None, scale=scale, legend=alt.Legend(orient="top")),
        "fill": alt.when("datum.survives === 'yes'")
        .then(alt.Fill("kind:N", title=None, scale=scale))
        .otherwise(alt.value("transparent")),
    }


def zero(**at: Any) -> alt.Chart:
    """Return the line at zero of one axis, `x` or `y`."""
    return alt.Chart(alt.Data(values=[{}])).mark_rule(style="zero").encode(**at)


def signed_axis() -> alt.Axis:
    """Return an axis of effects, whose numbers have signs."""
    return alt.Axis(format="+.2~f", tickCount=6, labelExpr="datum.value === 0 ? '0' : datum.label")


def effect_axis() -> alt.X:
    """Return the axis of mean effects."""
    return alt.X("mean:Q", title="mean indirect effect", axis=signed_axis())


def by_field(field: str) -> alt.EncodingSortField:
    """Return the order of an axis by another field of its rows."""
    return alt.EncodingSortField(field=field, op="min", order="ascending")  # pyright: ignore


def kinds_of(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return the kinds in rows by their letters."""
    return {row["letter"]: row["kind"] for row in sorted(rows, key=lambda row: row["y"])}
