"""Printing the results of an edit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cli.printing.lines import say, say_folded, say_lines
from cli.printing.output import Format, print_rows

if TYPE_CHECKING:
    from schemas.manifest import EditManifest

TITLES = {
    "concept": "concept",
    "concept_before": "before",
    "concept_after": "after",
    "replacement": "replacement",
    "replacement_before": "its before",
    "replacement_after": "its after",
}
"""The titles of a table for people, which a terminal of 80 columns holds, by the data's names."""


def print_edit(manifest: "EditManifest", out: Path, output_format: Format) -> None:
    """Print the results of the edit in the folder `out`."""
    if output_format is Format.JSON:
        say_lines(json.dumps({"out": str(out), **manifest.model_dump(mode="json")}, indent=2))
        return
    if manifest.scores:
        rows = [scores.model_dump(exclude={"kind"}) for scores in manifest.scores]
        if output_format is Format.TABLE:
            say("scores of the images, against the concept and against its replacement:")
            rows = [{title: row[name] for name, title in TITLES.items()} for row in rows]
        print_rows(rows, output_format)
    for line in _summary(manifest, out):
        say_folded(line, err=output_format is not Format.TABLE)


def _summary(manifest: "EditManifest", out: Path) -> Iterator[str]:
    if manifest.untouched_change is not None:
        yield f"untouched concepts: mean change of the score {manifest.untouched_change:+.3f}"
    changed = ", ".join(f"{m.name} {100 * m.relative_change:.1f}%" for m in manifest.matrices)
    yield f"concepts: {len(manifest.concepts)}; changed: {changed}"
    yield f"keys {manifest.key_seconds:.2f} s, solve {manifest.solve_seconds:.3f} s"
    yield f"edit: {out}"
