"""The network drawn in execution order, each component colored by its effect."""

from collections import defaultdict
from typing import Any

import altair as alt

from jobs.report.figures.parts import (
    Rows,
    bound_parameter,
    effect_color,
    effects,
    key_below,
    kinds_of,
    legible_on,
    tooltips,
)

CELL_WIDTH, CELL_HEIGHT = 30, 26
"""Pixels."""
FEW = 16
"""In a network of at most this many columns, cells are a quarter larger."""


def network(rows: Rows) -> alt.TopLevelMixin:
    """Return a part of the network: one cell per component, in columns in the order of execution.

    A UNet's blocks go down to the middle and up again, with its skip connections. A strong outline
    marks a component that survives.
    """
    width = max((row["x"] for row in rows), default=0.0) + 1
    height = max((row["y"] for row in rows), default=0.0) + 1
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, width], nice=False))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[-0.8, height], nice=False, reverse=True))
    cells = effects().transform_calculate(
        right="datum.x + 1", bottom="datum.y + 1", middle="datum.x + 0.5", center="datum.y + 0.5"
    )
    # Every layer of the chart has the hover values: the pointer may be on a letter or an outline.
    cells = cells.encode(
        tooltip=tooltips(("component", "component"), ("kind", "kind"), ("token", "token"))
    )
    boxes = cells.encode(x=x, y=y, x2="right:Q", y2="bottom:Q")
    texts = cells.encode(
        x=alt.X("middle:Q", axis=None), y=alt.Y("center:Q", axis=None), text="letter:N"
    )
    size = 1.25 if width <= FEW else 1.0
    layers = [
        _skips(rows),
        boxes.mark_rect(style="ground", aria=False),
        boxes.mark_rect(style="cell", cornerRadius=3).encode(color=effect_color()),
        boxes.transform_filter("datum.survives === 'yes'").mark_rect(
            style="survivor", cornerRadius=3, aria=False
        ),
        texts.mark_text(fontSize=12, fontWeight=600, aria=False).encode(color=legible_on("mean")),
        _blocks(rows),
    ]
    key = [f"{letter} {kind}" for letter, kind in kinds_of(rows).items()]
    lines = [", ".join(key[n : n + 2]) for n in range(0, len(key), 2)]
    return (
        alt.layer(*layers)
        .add_params(bound_parameter(rows))
        .properties(
            width=CELL_WIDTH * size * width,
            height=CELL_HEIGHT * size * (height + 0.8),
            title=key_below(*lines, "strong outline: survives"),
        )
    )


def _spans(rows: Rows) -> dict[str, dict[str, Any]]:
    """Return the first and last column of each block, in order."""
    of_block = defaultdict[str, list[dict[str, Any]]](list)
    for row in sorted(rows, key=lambda row: row["x"]):
        of_block[row["block"]].append(row)
    return {
        block: {
            "block": block,
            "left": min(row["x"] for row in columns),
            "right": max(row["x"] for row in columns) + 1,
            "middle": (min(row["x"] for row in columns) + max(row["x"] for row in columns) + 1) / 2,
            "top": min(row["y"] for row in columns),
            "center": (min(row["y"] for row in columns) + max(row["y"] for row in columns) + 1) / 2,
        }
        for block, columns in of_block.items()
    }


def _blocks(rows: Rows) -> alt.Chart:
    chart = alt.Chart(alt.Data(values=list(_spans(rows).values())))
    return chart.mark_text(style="block", dy=-8).encode(
        x=alt.X("middle:Q", axis=None),
        y=alt.Y("top:Q", axis=None),
        text="block:N",
    )


def _skips(rows: Rows) -> alt.Chart:
    """Return lines from each block on the way down to its counterpart on the way up."""
    spans = list(_spans(rows).values())
    pairs = zip(spans, reversed(spans), strict=True)
    lines = [
        {"from": a["right"], "to": b["left"], "at": a["center"]}
        for a, b in pairs
        if a["block"].startswith("down") and b["block"].startswith("up")
    ]
    return (
        alt.Chart(alt.Data(values=lines))
        .mark_rule(style="skip")
        .encode(
            x=alt.X("from:Q", axis=None),
            x2="to:Q",
            y=alt.Y("at:Q", axis=None),
        )
    )
