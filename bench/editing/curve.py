"""Curve of bench.editing.batch: python -m bench.editing.curve ROWS.json... --out CURVE.svg.

The harmonic mean H with its 95 % intervals by the number of objects, a line for each model and
edit.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import altair as alt

WIDTH, HEIGHT = 420, 260


def curve(rows: list[dict[str, Any]]) -> alt.TopLevelMixin:
    """Return a chart of the harmonic mean over the number of objects, one line per edit."""
    count = alt.X("objects:O", title="objects edited at once", axis=alt.Axis(labelAngle=0))
    edit = alt.Color("edit:N", title="edit", sort=list(dict.fromkeys(r["edit"] for r in rows)))
    # Intervals of one number of objects stand side by side.
    shift = alt.XOffset("edit:N")
    scale = alt.Scale(domain=[0, 1])
    base = alt.Chart(alt.Data(values=rows))
    title = "harmonic mean of concepts gone and the rest kept"
    bars = base.mark_rule(opacity=0.5).encode(
        x=count, xOffset=shift, color=edit, y=alt.Y("low:Q", title=title, scale=scale),
        y2="high:Q",
    )  # fmt: skip
    lines = base.mark_line(point=True).encode(x=count, xOffset=shift, y=alt.Y("H:Q"), color=edit)
    return (bars + lines).properties(width=WIDTH, height=HEIGHT)


def drawn(row: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a row that the curve shows; a row without an interval has no bar."""
    low, high = row["H_interval"] or (row["H"], row["H"])
    line = f"{row['model']}, {row['edit']}"
    return {"objects": row["objects"], "edit": line, "H": row["H"], "low": low, "high": high}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("rows", type=Path, nargs="+", help="files of bench.editing.batch --json")
    parser.add_argument("--out", type=Path, required=True, help="SVG file of the curve")
    options = parser.parse_args()
    rows = [drawn(row) for path in options.rows for row in json.loads(path.read_text())]
    curve(sorted(rows, key=lambda row: row["objects"])).save(options.out)


if __name__ == "__main__":
    main()
