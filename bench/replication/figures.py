"""The figures of docs/findings.md, as SVG in docs/images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt

from bench.replication.claims import Evidence, short
from bench.replication.evidence import ATTRIBUTES, MEASURES, ROLES, Row, rows
from jobs.query.opened import Views

COLORS = alt.Scale(scheme="blueorange", domainMid=0)
"""Diverging, which color-blind people can distinguish."""


def draw_figures(folder: Path, images: Path) -> list[tuple[str, str]]:
    """Write the figures that the runs suffice for; return their file names and what each shows."""
    with Evidence.opened(folder, MEASURES[0]) as evidence:
        return _drawn(evidence, images)


def _drawn(evidence: Evidence, images: Path) -> list[tuple[str, str]]:
    images.mkdir(exist_ok=True)
    drawn: list[tuple[str, str]] = []

    def save(name: str, chart: Any, text: str) -> None:
        chart.save(str(images / name))
        drawn.append((name, text))

    if evidence.text:
        text = "Text encoder: mean indirect effect at the last subject token, 95 % intervals"
        save("findings-text.svg", _effects(_states(evidence, evidence.text), "restore"), text)
    if cells := _cells(evidence):
        text = "Layer x token: mean indirect effect as a share of the mean total effect"
        save("findings-tokens.svg", _map(cells), text)
    if evidence.unet:
        text = "UNet, from the latent to the noise: restored, and both controls, 95 % intervals"
        save("findings-unet.svg", _effects(_states(evidence, evidence.unet), None), text)
    return drawn


def _states(evidence: Evidence, views: Views) -> list[Row]:
    found = rows(
        views,
        "SELECT attribute, component, intervention, mean_ie, ie_low, ie_high, network_order "
        f"FROM component_effects JOIN components USING (component) WHERE "
        f"measure = '{evidence.measure}' ORDER BY network_order",
    )
    return [{**row, "component": short(row["component"])} for row in found]


def _effects(states: Sequence[Row], only: str | None) -> Any:
    """Return dots with intervals: a column per attribute, a row per component in network order."""
    data = alt.Data(values=[row for row in states if only in (None, row["intervention"])])
    order = list(dict.fromkeys(row["component"] for row in states))
    base = alt.Chart(data).encode(
        y=alt.Y("component:N", sort=order, title=None),
        yOffset="intervention:N",
        color=alt.Color("intervention:N", title=None, scale=alt.Scale(scheme="tableau10")),
    )
    dots = base.mark_point(filled=True, size=22).encode(
        x=alt.X("mean_ie:Q", title="indirect effect")
    )
    bars = base.mark_rule().encode(x="ie_low:Q", x2="ie_high:Q")
    zero = alt.Chart(data).mark_rule(color="#888").encode(x=alt.datum(0))
    return (
        alt.layer(zero, bars, dots)
        .properties(width=130, height=alt.Step(5 if only is None else 14))
        .facet(column=alt.Column("attribute:N", sort=list(ATTRIBUTES), title=None))
        .configure_view(stroke="#ddd")
    )


def _cells(evidence: Evidence) -> list[Row]:
    """Return the layers and roles of token that enough captions have."""
    effects = evidence.token_effects
    if effects is None:
        return []
    components = sorted({component for _, component, _ in effects.means})
    return [
        {
            "attribute": attribute,
            "component": short(component),
            "role": role,
            "share": effect.value / float(effects.totals[attribute].mean()),
        }
        for attribute in effects.totals
        for component in components
        for role in ROLES
        if (effect := effects.effect(attribute, component, role))
    ]


def _map(cells: Sequence[Row]) -> Any:
    order = list(dict.fromkeys(row["component"] for row in cells))
    return (
        alt.Chart(alt.Data(values=list(cells)))
        .mark_rect()
        .encode(
            x=alt.X("role:N", sort=list(ROLES), title=None, axis=alt.Axis(labelAngle=-40)),
            y=alt.Y("component:N", sort=order, title=None),
            color=alt.Color("share:Q", scale=COLORS, title="of the total", legend=alt.Legend()),
        )
        .properties(width=130, height=alt.Step(16))
        .facet(column=alt.Column("attribute:N", sort=list(ATTRIBUTES), title=None))
    )
