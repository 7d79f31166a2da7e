"""`dqf edit-batch`: remove or replace a file of concepts in one closed-form edit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from cli.job import follow_to_end, shared
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
    address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS",
            help="http://HOST:8265 of a Ray cluster that does it as a job; else it is done here.",
        ),
    ] = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Edit all CONCEPTS out of a model's text encoder and write a complete diffusers folder.

    An empty target removes the concept: an object becomes "object", a style "photo", a color
    "plain", an action "standing", a person "person". The folder also gets `edit.json` and
    `before_after.png`. As a job, run and folder must be where the cluster's nodes find them too,
    and all that is printed is the job's log, on stderr.
    """
    from jobs.submission import is_job_address

    if address and is_job_address(address):
        _edit_as_a_job(
            concepts,
            {
                "--out": shared(out),
                "--from-run": _shared_run(from_run),
                "--layer": layer,
                "--model": _shared_model(model),
                "--scorer": _shared_model(scorer),
                "--images": images,
                "--ridge": ridge,
                "--preserve": preserve,
                "--format": output_format.value,
            },
            address=address,
        )
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


def _edit_as_a_job(concepts: Path, options: dict[str, object], *, address: str) -> NoReturn:
    from jobs.concepts import read_concepts
    from jobs.submission import cluster_gpus, submit

    read_concepts(concepts)
    shipped = f"concepts{concepts.suffix}"
    given = [(name, str(value)) for name, value in options.items() if value is not None]
    submission_id = submit(
        address,
        arguments=["edit-batch", shipped, *(word for option in given for word in option)],
        # The folder that it writes: a job of the run itself is one that traces.
        run=str(options["--out"]),
        files={shipped: concepts.read_bytes()},
        gpus=1 if cluster_gpus(address) else 0,
        # A run may be of any model.
        ships_reference_model="emoji-sd"
        in f"{options['--model'] or 'emoji-sd'} {options['--scorer']}",
    )
    follow_to_end(address, submission_id)


def _shared_run(name: str | None) -> str | None:
    return name and shared(run_location(name))


def _shared_model(name: str | None) -> str | None:
    """Return a folder's absolute path; the name of a model that dqf or the hub knows as it is."""
    from engine.registry import BUILT_IN

    is_folder = name is not None and name not in BUILT_IN and Path(name).is_dir()
    return shared(name) if name is not None and is_folder else name


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
