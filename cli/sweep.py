"""`dqf edit sweep`: many settings of one edit, evaluated together, with the best marked."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.job import arguments, driven, end_as, follow_as_job, say_end, shared_model
from cli.options.device import DeviceOption, cluster_on
from cli.options.evaluation import ImagesOption, ScorerOption
from cli.options.models import RevisionOption, VariantOption, check_name, full_name, model_option
from cli.options.progress import with_progress_options
from cli.options.run import ActorsOption, AddressOption, RetryOption, WaitOption
from cli.options.sampling import StepsOption
from cli.printing.lines import note
from cli.printing.output import Format, FormatOption, print_rows
from engine.files import read_bytes
from engine.model.registry import names_embedded
from schemas.errors import ConceptError, PlanError
from schemas.numbers import decimal
from schemas.prompt_set import PromptSet

STRENGTHS = "1,3,10"
"""Default of --preserve."""


@with_progress_options
def sweep(
    context: typer.Context,
    concepts: Annotated[
        Path,
        typer.Argument(
            metavar="CONCEPTS",
            help="Concept file, in the form that edit-batch reads.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the edits and their evaluation.")],
    layer: Annotated[
        list[str],
        typer.Option(help="Component, layer or network to edit; repeatable.", show_default=False),
    ],
    model: Annotated[str, model_option("Model to edit.", default="emoji-sd")] = "emoji-sd",
    revision: RevisionOption = None,
    variant: VariantOption = None,
    anchor: Annotated[
        str, typer.Option(help="Anchors, separated by commas: identity, kept, general.")
    ] = "kept",
    preserve: Annotated[
        str | None,
        typer.Option(
            help="Weights of the anchors kept and general, separated by commas.",
            show_default=STRENGTHS,
        ),
    ] = None,
    ridge: Annotated[str, typer.Option(help="Values of lambda, separated by commas.")] = "1e-2",
    roles: Annotated[
        str,
        typer.Option(
            help="Tokens that are fitted, separated by commas: all, subject, no-pads, few-pads."
        ),
    ] = "all",
    images: ImagesOption = 2,
    steps: StepsOption = None,
    scorer: ScorerOption = None,
    prompt_set: Annotated[
        PromptSet,
        typer.Option(metavar="SET", help="How many prompts: full, or small, a third of them."),
    ] = PromptSet.SMALL,
    actors: ActorsOption = None,
    device: DeviceOption = None,
    address: AddressOption = None,
    wait: WaitOption = True,
    retry_failed: RetryOption = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Make an edit of every combination of settings and print the results of each.

    `is_best` marks the edits that no other beats. One edit beats another if, over the images that
    the unedited model draws right, it still shows no more removed concepts, keeps at least as many
    names, has no higher CMMD, and is better in one of the three. The same command continues where
    it was cut short. For a job, the folder and the model must be where the cluster's nodes find
    them too.
    """
    note(f"reading {concepts}")
    model = full_name(model, revision=revision, variant=variant)
    check_name(model)
    from jobs.cluster.address import check_address
    from jobs.cluster.submission import is_job_address
    from jobs.evaluation.evaluate import EvaluationSettings
    from jobs.evaluation.sweep import Anchor, Grid, prepare_sweep
    from jobs.evaluation.sweep import sweep as work
    from jobs.input.concepts import read_concepts

    anchors = tuple(Anchor(name) for name in _words(anchor, "--anchor", tuple(Anchor)))
    if preserve is not None and anchors == (Anchor.IDENTITY,):
        raise PlanError("--preserve weighs the anchors kept and general: leave it out for identity")
    grid = Grid(
        components=tuple(layer),
        anchors=anchors,
        strengths=_numbers(STRENGTHS if preserve is None else preserve, "--preserve"),
        ridges=_numbers(ridge, "--ridge"),
        roles=_words(roles, "--roles"),
    )
    asked = EvaluationSettings(seeds=images, steps=steps, scorer=scorer, prompts=prompt_set)
    read = read_concepts(concepts)
    if address and is_job_address(address):
        shipped = f"concepts{concepts.suffix}"
        models = {"model": shared_model(model), "scorer": shared_model(scorer)}
        no_more = {"revision": None, "variant": None}
        follow_as_job(
            arguments(context, {"concepts": shipped, **models, **no_more}),
            address=address,
            out=out,
            waits=wait,
            files={shipped: read_bytes(concepts, error=ConceptError)},
            ships_reference_model=names_embedded(model, scorer),
        )
    if address:
        check_address(address)
    cluster = cluster_on(device, address=address, actors=actors)
    run = prepare_sweep(read, grid, out, model=model, asked=asked, note=note)
    with driven(run, address=address, doing="evaluating") as show:
        end, swept = work(
            run,
            out,
            cluster=cluster,
            retry_failed=retry_failed,
            on_progress=show,
            note=note,
        )
    say_end(run, end)
    print_rows([asdict(result) for result in swept], output_format)
    end_as(end)


def _words(text: str, option: str, allowed: tuple[str, ...] = ()) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    unknown = [word for word in words if allowed and word not in allowed]
    if unknown or not words:
        wrong = unknown[0] if unknown else text
        some = f"some of {', '.join(allowed)}" if allowed else "one value, or several"
        raise PlanError(f"{option} {wrong!r}: give {some} with commas")
    return words


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(dict.fromkeys(decimal(word) for word in _words(text, option)))
    except ValueError:
        raise PlanError(f"{option} {text!r}: give numbers with commas, such as 1,6") from None
