"""`dqf edit evaluate` and `dqf edit results`: measuring how well an edit worked."""

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.job import arguments, driven, end_as, follow_as_job, say_end
from cli.options.device import DeviceOption, cluster_on
from cli.options.edits import EditArgument, check_is_edit
from cli.options.evaluation import ImagesOption, ScorerOption
from cli.options.progress import with_progress_options
from cli.options.run import ActorsOption, AddressOption, RetryOption, WaitOption
from cli.options.sampling import StepsOption
from cli.printing.answers import say_unscored
from cli.printing.lines import note
from cli.printing.output import Format, FormatOption, print_rows
from engine.files import read_bytes
from schemas.errors import ConceptError
from schemas.prompt_set import PromptSet
from schemas.results import EVALUATION

if TYPE_CHECKING:
    from jobs.evaluation.by_concept import ConceptResult
    from jobs.evaluation.evaluate import EvaluationRequest
    from schemas.results import GroupResult


class By(StrEnum):
    """The subject of one row of the results."""

    GROUP = "group"
    CONCEPT = "concept"


OutOption = Annotated[
    Path | None, typer.Option(help="The evaluation's folder.", show_default="EDIT/evaluation")
]


@with_progress_options
def evaluate(
    context: typer.Context,
    edit: EditArgument,
    out: OutOption = None,
    images: ImagesOption = 4,
    steps: StepsOption = None,
    scorer: ScorerOption = None,
    prompt_set: Annotated[
        PromptSet,
        typer.Option(metavar="SET", help="How many prompts: full, or small, a third of them."),
    ] = PromptSet.FULL,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="CSV, JSONL, Parquet or YAML file of further prompts: concept, prompt, kind; or "
            "emma:FOLDER, a checkout of EMMA.",
        ),
    ] = None,
    actors: ActorsOption = None,
    device: DeviceOption = None,
    address: AddressOption = None,
    wait: WaitOption = True,
    retry_failed: RetryOption = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Print what would be drawn and what it could show; draw nothing."
        ),
    ] = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Draw unseen prompts before and after an edit; measure what is erased and what is kept.

    The same command continues where it was cut short. Accuracies are over all images (`before`,
    `after`) and over those that the unedited model draws right (`of_right`). Prompts of a file that
    say their concept count as the others; those that only mean it are a row of their own. The
    folder gets `evaluation.json`, a picture of each group in `images/`, and tables in `parts/`.
    """
    note(f"opening edit {edit}")
    from jobs.cluster.address import check_address
    from jobs.cluster.submission import is_job_address

    if not (address and is_job_address(address)):
        check_is_edit(edit)
    from jobs.evaluation.evaluate import EvaluationRequest, prepare_evaluation
    from jobs.evaluation.evaluate import evaluate as work
    from jobs.input.emma import EMMA

    request = EvaluationRequest(
        edit=edit, seeds=images, steps=steps, scorer=scorer, prompts=prompt_set, given=prompts
    )
    if plan:
        _print_plan(request, output_format)
        return
    folder = out or edit / EVALUATION
    if address and is_job_address(address):
        # A checkout stays where it is: the cluster's nodes must find it too.
        file = Path(prompts) if prompts and not prompts.startswith(EMMA) else None
        shipped = {f"prompts{file.suffix}": file} if file else {}
        words = arguments(context, {"out": folder, "prompts": next(iter(shipped), prompts)})
        follow_as_job(
            words,
            address=address,
            out=folder,
            waits=wait,
            files={n: read_bytes(path, error=ConceptError) for n, path in shipped.items()},
        )
    if address:
        check_address(address)
    cluster = cluster_on(device, address=address, actors=actors)
    run = prepare_evaluation(request, folder)
    with driven(run, address=address, doing="evaluating") as show:
        end, measured = work(
            run,
            edit,
            cluster=cluster,
            retry_failed=retry_failed,
            on_progress=show,
            note=note,
        )
    say_end(run, end)
    _print(measured, output_format)
    end_as(end)


def results(
    edit: EditArgument,
    out: OutOption = None,
    by: Annotated[
        By, typer.Option(help="One row per group of prompts, or per concept.")
    ] = By.GROUP,
    max_still_recognised: Annotated[
        float | None,
        typer.Option(
            help="Largest share of images that may still show a concept; exit code 1 if the 95 % "
            "bound is above it.",
        ),
    ] = None,
    min_kept: Annotated[
        float | None,
        typer.Option(
            help="Smallest share of images of kept names that must stay right; exit code 1 if the "
            "95 % bound is below it.",
        ),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Judge every concept, not the batch as a whole.")
    ] = False,
    card: Annotated[
        Path | None, typer.Option(help="File for the edit card, one page in Markdown.")
    ] = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Print the results of an evaluation, one row per group of prompts or per concept.

    By concept, the worst first: images that still show it with an exact upper bound, kept names
    that moved, and a verdict. With limits the exit code is 0 if all are met, otherwise 1.
    """
    from engine.files import check_output, write_whole
    from jobs.evaluation.by_concept import MAX_STILL_RECOGNISED, results_by_concept
    from jobs.evaluation.judgment import Limits, check_limits, judge
    from jobs.evaluation.measures import results as measured
    from jobs.runs.evaluation_run import open_evaluation_of

    check_is_edit(edit)
    limits = Limits(max_still_recognised=max_still_recognised, min_kept=min_kept, each=each)
    check_limits(limits)
    if card:
        check_output(card, error=ConceptError)
    run = open_evaluation_of(edit, out or edit / EVALUATION)
    say_unscored(run)
    groups = measured(run)
    concepts = results_by_concept(run, limit=max_still_recognised or MAX_STILL_RECOGNISED)
    if by is By.CONCEPT:
        _print_concepts(concepts, output_format)
    else:
        _print(groups, output_format)
    judgments = judge(groups, concepts, limits)
    for judgment in judgments:
        note(judgment.sentence)
    if card:
        from jobs.editing.whole import read_edit
        from jobs.evaluation.card import edit_card

        page = edit_card(
            read_edit(edit), run, groups=groups, concepts=concepts, judgments=judgments
        )
        write_whole(card, page.encode())
        note(f"edit card: {card}")
    if not all(judgment.is_met for judgment in judgments):
        raise typer.Exit(1)


def _print_plan(request: "EvaluationRequest", output_format: Format) -> None:
    from jobs.evaluation.cut import warn_of_cuts
    from jobs.evaluation.evaluate import plan_evaluation
    from jobs.evaluation.preview import outlook, preview

    plan = plan_evaluation(request)
    warn_of_cuts(plan, note)
    concepts = preview(plan)
    print_rows([asdict(concept) for concept in concepts], output_format)
    note(outlook(plan, concepts))


def _print_concepts(concepts: "Sequence[ConceptResult]", output_format: Format) -> None:
    if not output_format.is_for_people:
        rows: list[dict[str, object]] = [
            {**asdict(concept), "moved": ", ".join(concept.moved)} for concept in concepts
        ]
        print_rows(rows, output_format)
        return
    print_rows([_of_concept(concept) for concept in concepts], output_format)


def _of_concept(concept: "ConceptResult") -> dict[str, object]:
    """Return a concept's result as a row of the printed table."""
    return {
        "concept": concept.concept,
        "prompts": concept.prompts,
        "right before": concept.right_before,
        "recognized": concept.recognized,
        "share": concept.still_recognised,
        "at most": concept.at_most,
        "replacement drawn": concept.replacement_drawn,
        "neighbors": concept.neighbors,
        "moved": len(concept.moved),
        "verdict": concept.verdict,
    }


def _print(measured: "Sequence[GroupResult]", output_format: Format) -> None:
    from jobs.evaluation.measures import HEADLINE

    if not output_format.is_for_people:
        print_rows([asdict(result) for result in measured], output_format)
        return
    # The harmonic mean has no images of its own; it is missing if one of its groups has none.
    asked = [r for r in measured if r.images is not None or r.group in HEADLINE]
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
