"""`dqf edit-batch`: remove or replace a file of concepts in one closed-form edit."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from jobs.edit_report import EditReport

FORMATS = ("table", "json")


def edit_batch(
    concepts: Annotated[
        Path, typer.Argument(help="CSV, JSONL or Parquet file: concept, target, kind.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the edited model; new or empty.")],
    from_run: Annotated[
        Path | None, typer.Option(help="Trace run whose top text-encoder component is edited.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Component to edit instead, as `dqf models` names it.")
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
    format: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """Edit all CONCEPTS out of a model's text encoder and write a complete diffusers folder.

    An empty target removes the concept: an object becomes "object", a style "photo", a color
    "plain", an action "standing", a person "person". The folder also gets `edit.json` and
    `before_after.png`.
    """
    if format not in FORMATS:
        raise typer.BadParameter(f"--format is one of {', '.join(FORMATS)}")
    from jobs.edit_request import run_edit

    report = run_edit(
        concepts,
        out=out,
        run=from_run,
        layer=layer,
        model=model,
        scorer=scorer,
        images=images,
        ridge=ridge,
        preserve=preserve,
        note=lambda line: typer.echo(line, err=True),
    )
    text = json.dumps(report.as_dict(), indent=2) if format == "json" else _table(report)
    typer.echo(text)


def _table(report: "EditReport") -> str:
    head = ("concept", "target", "concept score", "", "target score", "")
    lines = [head, ("", "", "before", "after", "before", "after")]
    for s in report.scores:
        numbers = (s.concept_before, s.concept_after, s.target_before, s.target_after)
        lines.append((s.concept, s.target, *(f"{n:.3f}" for n in numbers)))
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    table = [
        "  ".join(
            cell.ljust(width) if n < 2 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join((table if report.scores else []) + _summary(report))


def _summary(report: "EditReport") -> list[str]:
    lines = []
    if report.untouched_change is not None:
        lines.append(f"untouched concepts: mean change {report.untouched_change:+.3f}")
    lines.append(
        f"{report.located.component}: weight changed by {100 * report.relative_change:.1f}% "
        f"for {len(report.concepts)} concepts; keys {report.key_seconds:.2f} s, "
        f"solve {report.solve_seconds:.3f} s"
    )
    lines.append(f"edited model: {report.out}")
    return lines
