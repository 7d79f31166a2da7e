"""`dqf edit evaluate` and `dqf edit results`: how well an edit worked."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from cli.job import follow_to_end, shared
from cli.options.evaluation import ScorerOption, SeedsOption, StepsOption
from cli.printing.output import Format, FormatOption, note, print_rows
from cli.printing.progress import progress_bar
from schemas.prompt_set import PromptSet

if TYPE_CHECKING:
    from jobs.evaluation.measures import GroupResult
    from jobs.runs.evaluation_run import EvaluationRun

EditArgument = Annotated[
    Path, typer.Argument(metavar="EDIT", help="An edit's folder: edit.json, edit.safetensors.")
]
OutOption = Annotated[
    Path | None, typer.Option(help="The evaluation's folder; EDIT/evaluation by default.")
]


def evaluate(
    edit: EditArgument,
    out: OutOption = None,
    seeds: SeedsOption = 4,
    steps: StepsOption = None,
    scorer: ScorerOption = None,
    prompts: Annotated[
        PromptSet, typer.Option(help="How many; `small` is a third of them.")
    ] = PromptSet.FULL,
    actors: Annotated[
        int | None, typer.Option(min=1, help="Ray actors; as many as there is room for if none.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS",
            help="http://HEAD:8265 submits a job; HOST:PORT drives from here; none: a local Ray.",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try the failed units again, and nothing else.")
    ] = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Draw unseen prompts before and after an edit and measure what is erased and what is kept.

    The same command goes on where it was cut short. Accuracies are over all images (`before`,
    `after`) and over those that the unedited model draws right (`of_right`). The folder gets
    `evaluation.json`, a picture of each group in `images/`, and tables in `parts/`.
    """
    from jobs.cluster.connection import check_address
    from jobs.cluster.submission import is_job_address
    from jobs.evaluation.evaluate import EvaluationRequest, prepare_evaluation

    folder = out or edit / "evaluation"
    if address and is_job_address(address):
        options = {
            "--out": shared(folder),
            "--seeds": seeds,
            "--steps": steps,
            "--scorer": scorer,
            "--prompts": prompts.value,
            "--actors": actors,
            "--format": output_format.value,
        }
        _as_a_job(edit, options, ["--retry-failed"] if retry_failed else [], address=address)
    if address:
        check_address(address)
    request = EvaluationRequest(edit=edit, seeds=seeds, steps=steps, scorer=scorer, prompts=prompts)
    run = prepare_evaluation(request, folder)
    _work(run, edit, address=address, actors=actors, retry_failed=retry_failed)
    _print(run, output_format)


def results(
    edit: EditArgument, out: OutOption = None, output_format: FormatOption = Format.TABLE
) -> None:
    """Print what an evaluation has measured, one row a group of prompts."""
    from jobs.runs.evaluation_run import open_evaluation

    _print(open_evaluation(out or edit / "evaluation"), output_format)


def _work(
    run: "EvaluationRun",
    edit: Path,
    *,
    address: str | None,
    actors: int | None,
    retry_failed: bool,
) -> None:
    from jobs.cluster.connection import Cluster
    from jobs.evaluation.evaluate import evaluate as work

    note(f"evaluation {run.location}: starting {address or 'a local Ray'}")
    try:
        with progress_bar("evaluating") as show:
            end = work(
                run,
                edit,
                cluster=Cluster(address=address, actors=actors),
                retry_failed=retry_failed,
                on_progress=show,
                note=note,
            )
    except KeyboardInterrupt:
        note(f"stopped; the same command goes on with evaluation {run.location}")
        raise typer.Exit(130) from None
    if end.failed:
        note(f"warning: {end.failed} of {end.total} units failed; --retry-failed tries them again")
    note(f"evaluation {run.location}: {end.done} of {end.total} units done")


def _print(run: "EvaluationRun", output_format: Format) -> None:
    from jobs.evaluation.measures import HEADLINE
    from jobs.evaluation.measures import results as measured

    found = measured(run)
    if not output_format.is_for_people:
        print_rows([asdict(result) for result in found], output_format)
        return
    # The harmonic mean has no images of its own, and says by its absence that one side has none.
    asked = [r for r in found if r.images is not None or r.group in HEADLINE]
    print_rows([_short(result) for result in asked], output_format)


def _short(result: "GroupResult") -> dict[str, object]:
    """Return a result as a row of the printed table."""
    return {
        "group": result.group,
        "names": result.names,
        "images": result.images,
        "before": result.before,
        "after": result.after,
        "95 %": _interval(result.after_low, result.after_high),
        "of right before": result.of_right,
        "95 % ": _interval(result.of_right_low, result.of_right_high),
        "as replacement": result.as_replacement,
        "clip before": result.clip_before,
        "clip after": result.clip_after,
        "similarity": result.similarity,
        "cmmd": result.cmmd,
    }


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _as_a_job(
    edit: Path, options: dict[str, object], flags: list[str], *, address: str
) -> NoReturn:
    from jobs.cluster.submission import cluster_gpus, submit

    given = [(name, str(value)) for name, value in options.items() if value is not None]
    submission_id = submit(
        address,
        arguments=["edit", "evaluate", shared(edit), *(w for pair in given for w in pair), *flags],
        run=str(options["--out"]),
        files={},
        gpus=1 if cluster_gpus(address) else 0,
        ships_reference_model=True,
    )
    follow_to_end(address, submission_id)
