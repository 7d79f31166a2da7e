"""The figures of docs/findings.md, as SVG in docs/images."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import altair as alt

from bench.replication.evidence import Evidence, Row, rows
from bench.replication.tables import by_contribution, fit_of
from bench.replication.together import curve, from_depth
from schemas.component import Part
from schemas.component_set import Curve
from schemas.short_names import short_name

PREFIX = "findings-"
"""Names of the figures begin with it; older ones are deleted."""
PALETTE = alt.Scale(scheme="tableau10")
SHARE = "of the total effect"


def draw_figures(models: Sequence[Evidence], images: Path) -> list[tuple[str, str]]:
    """Write the figures that the runs suffice for, in place of those that are there; return their
    file names and what each shows."""
    images.mkdir(exist_ok=True)
    for old in images.glob(f"{PREFIX}*.svg"):
        old.unlink()
    drawn: list[tuple[str, str]] = []
    for name, chart, text in _charts(models):
        chart.save(str(images / f"{PREFIX}{name}.svg"))
        drawn.append((f"{PREFIX}{name}.svg", text))
    return drawn


def _charts(models: Sequence[Evidence]) -> Iterator[tuple[str, Any, str]]:
    """Yield a name, a chart and what it shows."""
    if sets := [row for evidence in models for row in _set_rows(evidence)]:
        text = "How many components together: share of the total effect that the first of a "
        text += "ranking bring back, and random ones of the same kinds, 95 % intervals"
        yield "sets", _curves(sets), text
    if depth := [row for evidence in models for row in _depth_rows(evidence)]:
        text = "From which depth on the text matters: share of the total effect that the text from "
        text += "there on brings back and takes away, 95 % intervals"
        yield "depth", _depths(depth), text
    for evidence, part in product(models, Part):
        if states := _states(evidence, part):
            text = f"{evidence.model}, {part.value}, in the network's order: indirect effect of "
            text += "each component's state, 95 % intervals"
            yield f"{evidence.model}-{part.value}", _effects(states), text


def _set_rows(evidence: Evidence) -> list[Row]:
    cases = {
        "text encoder": (Part.TEXT_ENCODER, evidence.sets),
        "denoiser, by state": (Part.DENOISER, evidence.sets),
        "denoiser, by contribution": (Part.DENOISER, by_contribution(evidence)),
    }
    return [
        {**row, "attribute": attribute, "curve": kind.value, "case": f"{evidence.model}: {case}"}
        for case, (part, views) in cases.items()
        for attribute in fit_of(evidence, views)
        for kind in (Curve.TOP, Curve.RANDOM)
        for row in curve(views, attribute, part, evidence.measure, kind=kind)
        if row["mean_recovery"] is not None
    ]


def _curves(found: Sequence[Row]) -> Any:
    """Return shares over sizes: a column per attribute, a row per model and kind of set."""
    base = alt.Chart(alt.Data(values=list(found))).encode(
        x=alt.X("size:Q", title="components together"),
        color=alt.Color("curve:N", title=None, scale=PALETTE),
    )
    bands = base.mark_area(opacity=0.2).encode(y="recovery_low:Q", y2="recovery_high:Q")
    lines = base.mark_line(point=True).encode(y=alt.Y("mean_recovery:Q", title=SHARE))
    return _faceted(alt.layer(bands, lines).properties(width=130, height=90), "case")


def _depth_rows(evidence: Evidence) -> list[Row]:
    return [
        {
            "model": evidence.model,
            "attribute": attribute,
            "done": done,
            "depth": depth,
            "share": share.value,
            "low": share.low,
            "high": share.high,
        }
        for attribute in fit_of(evidence, evidence.paths)
        for intervention, done in (("restore", "brought back"), ("corrupt", "taken away"))
        for depth, share in enumerate(from_depth(evidence, attribute, intervention))
    ]


def _depths(found: Sequence[Row]) -> Any:
    base = alt.Chart(alt.Data(values=list(found))).encode(
        x=alt.X("depth:Q", title="text from this depth on", axis=alt.Axis(tickMinStep=1)),
        color=alt.Color("done:N", title=None, scale=PALETTE),
    )
    bands = base.mark_area(opacity=0.2).encode(y="low:Q", y2="high:Q")
    lines = base.mark_line(point=True).encode(y=alt.Y("share:Q", title=SHARE))
    return _faceted(alt.layer(bands, lines).properties(width=130, height=110), "model")


def _states(evidence: Evidence, part: Part) -> list[Row]:
    if evidence.components is None:
        return []
    found = rows(
        evidence.components,
        "SELECT attribute, component, intervention, mean_ie, ie_low, ie_high, network_order "
        "FROM component_effects JOIN components USING (component, part) WHERE "
        f"measure = '{evidence.measure}' AND part = '{part}' AND patch_kind = 'state' "
        "ORDER BY network_order",
    )
    return [{**row, "component": short_name(row["component"])} for row in found]


def _effects(states: Sequence[Row]) -> Any:
    """Return dots with intervals: a column per attribute, a row per component in network order."""
    data = alt.Data(values=list(states))
    order = list(dict.fromkeys(row["component"] for row in states))
    base = alt.Chart(data).encode(
        y=alt.Y("component:N", sort=order, title=None),
        yOffset="intervention:N",
        color=alt.Color("intervention:N", title=None, scale=PALETTE),
    )
    dots = base.mark_point(filled=True, size=22).encode(
        x=alt.X("mean_ie:Q", title="indirect effect")
    )
    bars = base.mark_rule().encode(x="ie_low:Q", x2="ie_high:Q")
    zero = alt.Chart(data).mark_rule(color="#888").encode(x=alt.datum(0))
    chart = alt.layer(zero, bars, dots).properties(width=110, height=alt.Step(5))
    return _faceted(chart, None)


def _faceted(chart: Any, row: str | None) -> Any:
    """Return a chart for each attribute, in the data's order, and each value of another column."""
    facets: dict[str, Any] = {"column": alt.Column("attribute:N", sort=None, title=None)}
    if row is not None:
        facets["row"] = alt.Row(f"{row}:N", sort=None, title=None)
    return chart.facet(**facets).configure_view(stroke="#ddd")
