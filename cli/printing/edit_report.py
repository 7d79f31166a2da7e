"""Printing what an edit did: the scores of its concepts and a summary."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from cli.printing.output import Format, print_rows

if TYPE_CHECKING:
    from jobs.editing.report import EditReport


def print_report(report: "EditReport", output_format: Format) -> None:
    """Print what an edit did."""
    if output_format is Format.JSON:
        typer.echo(json.dumps(report.as_dict(), indent=2))
        return
    if report.scores:
        print_rows(_score_rows(report), output_format)
    for line in _summary(report):
        typer.echo(line, err=output_format is not Format.TABLE)


def _score_rows(report: "EditReport") -> list[dict[str, object]]:
    return [
        {
            "concept": scores.concept,
            "target": scores.target,
            "concept_before": scores.concept_before,
            "concept_after": scores.concept_after,
            "target_before": scores.target_before,
            "target_after": scores.target_after,
        }
        for scores in report.scores
    ]


def _summary(report: "EditReport") -> Iterator[str]:
    if report.untouched_change is not None:
        yield f"untouched concepts: mean change of the score {report.untouched_change:+.3f}"
    changed = ", ".join(f"{n} {100 * c:.1f}%" for n, c in report.relative_changes.items())
    yield f"changed for {len(report.concepts)} concepts: {changed}"
    yield f"keys {report.key_seconds:.2f} s, solve {report.solve_seconds:.3f} s"
    yield f"edit: {report.out}"
