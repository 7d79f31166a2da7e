"""The style of figures: colors that color-blind people can distinguish, on light and dark
ground."""

from dataclasses import dataclass
from typing import Any

EFFECT_SCALE = (
    "ColorBrewer's PuOr: purple below zero, orange above; on dark ground with a dark middle"
)
KIND_COLORS = {
    "resnet": "#7f7f7f",
    "self-attention": "#0072b2",
    "self-attention (text)": "#7570b3",
    "joint attention": "#56b4e9",
    "cross-attention": "#d55e00",
    "feed-forward": "#009e73",
    "MLP": "#009e73",
    "head": "#cc79a7",
    "block": "#7f7f7f",
    "layer": "#7f7f7f",
    "joint attention (text)": "#d55e00",
    "feed-forward (text)": "#e69f00",
    "image stream": "#0072b2",
    "text stream": "#cc79a7",
    "text projection": "#a6761d",
    "pooled projection": "#66a61e",
    "modulation": "#7f7f7f",
}
"""Okabe and Ito's colors, and of ColorBrewer's Dark2 those of projections: legible on white and on
near-black."""
SERIES = ("#d55e00", "#0072b2", "#7f7f7f", "#009e73")
"""Okabe and Ito's colors for the series of one figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """Colors of the page's ground and of everything drawn on it."""

    ink: str
    muted: str
    grid: str
    surface: str
    diverging: tuple[str, ...]
    """Colors from the most negative effect over zero to the most positive."""
    ramp: tuple[str, ...]
    """Colors from 0 to 1."""


LIGHT = Theme(
    ink="#1a1d21",
    muted="#5a616b",
    grid="#e3e6ea",
    surface="#ffffff",
    diverging=(
        "#542788", "#8073ac", "#b2abd2", "#d8daeb", "#f7f7f7",
        "#fee0b6", "#fdb863", "#e08214", "#b35806",
    ),
    ramp=("#f7f7f7", "#fee0b6", "#fdb863", "#e08214", "#b35806"),
)  # fmt: skip
DARK = Theme(
    ink="#e6e8eb",
    muted="#a0a7b1",
    grid="#343a43",
    surface="#16191e",
    diverging=(
        "#cfc6f2", "#a698dc", "#7d6cb8", "#51467f", "#2b2f37",
        "#6b4a1c", "#a86a1a", "#e0912f", "#ffc983",
    ),
    ramp=("#2b2f37", "#6b4a1c", "#a86a1a", "#e0912f", "#ffc983"),
)  # fmt: skip


def config(theme: Theme, *, font: str = "sans-serif") -> dict[str, Any]:
    """Return the Vega-Lite configuration of a theme; figures use the color names that it
    defines."""
    text = {"labelColor": theme.muted, "titleColor": theme.ink, "labelFont": font}
    text |= {"titleFont": font, "titleFontWeight": 600, "labelFontSize": 12, "titleFontSize": 12}
    return {
        "background": theme.surface,
        "font": font,
        "view": {"stroke": None},
        "axis": {
            **text,
            "gridColor": theme.grid,
            "domain": False,
            "tickColor": theme.grid,
            "labelPadding": 6,
            "titlePadding": 10,
        },
        "axisBand": {"grid": False, "ticks": False},
        "legend": {
            **text,
            "labelLimit": 0,
            "symbolStrokeColor": theme.ink,
            "gradientStrokeColor": theme.grid,
        },
        "header": {**text, "labelFontWeight": 600, "labelColor": theme.ink},
        "title": {"color": theme.muted, "font": font},
        "text": {"font": font, "fontSize": 11, "color": theme.ink},
        "rule": {"color": theme.muted},
        "range": {
            "diverging": list(theme.diverging),
            "heatmap": list(theme.ramp),
            "ramp": list(theme.ramp),
            "category": list(SERIES),
        },
        "style": {
            "zero": {"color": theme.muted, "strokeDash": [3, 3], "strokeWidth": 1},
            "interval": {"color": theme.muted, "strokeWidth": 1.5},
            "block": {"color": theme.muted, "fontSize": 12, "fontWeight": 600},
            "skip": {"color": theme.grid, "strokeWidth": 2},
            "survivor": {"color": theme.ink, "filled": False, "strokeWidth": 2},
            "cell": {"stroke": theme.surface, "strokeWidth": 1},
            "ground": {"color": theme.surface},
        },
    }
