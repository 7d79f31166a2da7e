"""Figures for papers: panels next to each other under one title, in light colors."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.report.figures.parts import BOUND, ROWS, TOP
from jobs.report.figures.style import LIGHT, config

WIDTH = 460
"""Width in pixels, 96 per inch, of a plot whose width does not follow from its rows."""
COLUMNS = 2
"""The number of panels in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A figure of one choice, with its rows."""

    spec: dict[str, Any]
    title: str


def panels(
    shown: Sequence[Panel],
    *,
    title: str | None = None,
    width: int | None = None,
    top: int | None = None,
    shared_x: bool = False,
) -> dict[str, Any]:
    """Return panels as one Vega-Lite specification.

    All panels have one scale of colors, and with `shared_x` one horizontal axis. A single panel's
    title is `title`, or its own if that is None; several have their own below `title`.
    """
    alone = len(shown) == 1
    figures = [_figure(panel, number, width=width) for number, panel in enumerate(shown)]
    resolve = {"scale": {"x": "shared"}} if shared_x else {}
    inner = [
        {
            "vconcat": [figure],
            "resolve": resolve,
            **_heading("" if alone and title is not None else panel.title),
        }
        for panel, figure in zip(shown, figures, strict=True)
    ]
    return {
        **_heading(title or ""),
        "concat": inner,
        "columns": COLUMNS,
        "resolve": resolve,
        "params": _parameters([panel.spec for panel in shown], top),
        "datasets": {
            _name(name, number): rows
            for number, panel in enumerate(shown)
            for name, rows in panel.spec["datasets"].items()
        },
        "config": config(LIGHT),
    }


def _heading(text: str) -> dict[str, Any]:
    """Return the title of a group of plots, which takes no room if it is empty."""
    style = {"anchor": "start", "fontSize": 13, "fontWeight": 600, "color": LIGHT.ink}
    return {"title": {"text": text, **style}} if text else {}


def _name(name: str, number: int) -> str:
    """Return the name of a panel's data: each panel has rows of its own."""
    return f"{name}-{number}" if name == ROWS else name


def _figure(panel: Panel, number: int, *, width: int | None) -> dict[str, Any]:
    """Return a panel's figure without what stands once above all panels."""
    above = ("datasets", "params", "$schema", "config")
    figure = {name: value for name, value in panel.spec.items() if name not in above}
    if figure.get("width") == "container":
        figure["width"] = width or WIDTH
    return _renamed(figure, number)


def _renamed(figure: dict[str, Any], number: int) -> dict[str, Any]:
    """Return a figure whose data ROWS have the panel's name."""
    # A text of a run cannot look like the reference: its quotes are escaped in JSON.
    reference = json.dumps({"name": ROWS})
    renamed = json.dumps({"name": _name(ROWS, number)})
    return json.loads(json.dumps(figure).replace(reference, renamed))


def _parameters(specs: Sequence[dict[str, Any]], top: int | None) -> list[dict[str, Any]]:
    """Return the panels' parameters: the widest scale of effects, and the number of states."""
    values: dict[str, float] = {}
    for parameter in (one for spec in specs for one in spec.get("params", [])):
        name, value = parameter["name"], parameter["value"]
        values[name] = max(values.get(name, value), value)
    if top is not None:
        values[TOP] = top
    return [{"name": name, "value": values[name]} for name in (BOUND, TOP) if name in values]
