"""Table and curve of bench.editing.batch: python -m bench.editing.curve ROWS.json... --out
CURVE.svg.

The table, in Markdown, has the shares that each edit erases and keeps by the number of concepts;
the curve shows the harmonic mean with its 95 % intervals.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import altair as alt

MEASURES = (
    "still_recognised",
    "kept",
    "still_recognised_of_right",
    "kept_of_right",
    "H_of_right",
    "replacement",
)
WIDTH, HEIGHT = 420, 260


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    head = ("objects", "edit", *(m.replace("_", " ") for m in MEASURES), "interval of H", "images")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        shares = [f"{row[measure]:.3f}" for measure in MEASURES]
        interval = "" if row["H_low"] is None else f"{row['H_low']:.2f} to {row['H_high']:.2f}"
        cells = (str(row["count"]), row["edit"], *shares, interval, str(row["images"]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curve(rows: list[dict[str, Any]]) -> alt.TopLevelMixin:
    """Return a chart of the harmonic mean over the number of objects, one line per edit."""
    count = alt.X("count:O", title="objects edited at once", axis=alt.Axis(labelAngle=0))
    edit = alt.Color("edit:N", title="edit", sort=list(dict.fromkeys(r["edit"] for r in rows)))
    # Intervals of one number of objects stand side by side.
    shift = alt.XOffset("edit:N")
    scale = alt.Scale(domain=[0, 1])
    base = alt.Chart(alt.Data(values=rows))
    title = "harmonic mean of concepts gone and the rest kept"
    bars = base.mark_rule(opacity=0.5).encode(
        x=count, xOffset=shift, color=edit, y=alt.Y("H_low:Q", title=title, scale=scale),
        y2="H_high:Q",
    )  # fmt: skip
    lines = base.mark_line(point=True).encode(
        x=count, xOffset=shift, y=alt.Y("H_of_right:Q"), color=edit
    )
    return (bars + lines).properties(width=WIDTH, height=HEIGHT)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("rows", type=Path, nargs="+", help="files of bench.editing.batch --json")
    parser.add_argument("--out", type=Path, help="SVG file of the curve")
    options = parser.parse_args()
    rows = [row for path in options.rows for row in json.loads(path.read_text())]
    rows = sorted((row for row in rows if "error" not in row), key=lambda row: row["count"])
    print(table(rows))
    if options.out:
        curve(rows).save(options.out)


if __name__ == "__main__":
    main()
