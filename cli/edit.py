"""`dqf edit-batch`: remove or replace a file of concepts in one closed-form edit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import Format, FormatOption, print_rows
from cli.runs import run_location

if TYPE_CHECKING:
    from jobs.edit_report import EditReport


def edit_batch(
    concepts: Annotated[
        Path, typer.Argument(help="CSV, JSONL or Parquet file: concept, target, kind.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the edited model; new or empty.")],
    from_run: Annotated[
        str | None, typer.Option(help="Run whose top-ranked text-encoder component is edited.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Component to edit instead; see `dqf components`.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model to edit; the run's own by default.")
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(help="Scorer of the images; the model's own by default.")
    ] = None,
    images: Annotated[
        int, typer.Option(min=0, help="Images per prompt before and after; 0: none, no scores.")
    ] = 2,
    ridge: Annotated[
        float | None, typer.Option(help="lambda: keeps the change small in every direction.")
    ] = None,
    preserve: Annotated[
        float | None, typer.Option(min=0.0, help="mu: keeps what no concept says as it was.")
    ] = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Edit all CONCEPTS out of a model's text encoder and write a complete diffusers folder.

    An empty target removes the concept: an object becomes "object", a style "photo", a color
    "plain", an action "standing", a person "person". The folder also gets `edit.json` and
    `before_after.png`.
    """
    from jobs.edit_request import run_edit

    report = run_edit(
        concepts,
        out=out,
        run=run_location(from_run) if from_run else None,
        layer=layer,
        model=model,
        scorer=scorer,
        images=images,
        ridge=ridge,
        preserve=preserve,
        note=lambda line: typer.echo(line, err=True),
    )
    if output_format is Format.JSON:
        typer.echo(json.dumps(report.as_dict(), indent=2))
        return
    if report.scores:
        print_rows(_score_rows(report), output_format)
    for line in _summary(report):
        typer.echo(line, err=output_format is Format.CSV)


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
    yield (
        f"{report.located.component}: weight changed by {100 * report.relative_change:.1f}% "
        f"for {len(report.concepts)} concepts; keys {report.key_seconds:.2f} s, "
        f"solve {report.solve_seconds:.3f} s"
    )
    yield f"edited model: {report.out}"
