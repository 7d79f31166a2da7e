"""`dqf edit attack`: attempts to draw the concepts of an edit again."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.job import arguments, driven, end_as, follow_as_job, say_end
from cli.options.device import DeviceOption, cluster_on
from cli.options.edits import EditArgument, check_is_edit
from cli.options.evaluation import ScorerOption
from cli.options.progress import with_progress_options
from cli.options.run import ActorsOption, AddressOption, RetryOption, WaitOption
from cli.printing.lines import note
from cli.printing.output import Format, FormatOption, print_rows


class Method(StrEnum):
    """The attacks that are made."""

    EMBEDDING = "embedding"
    PROMPT = "prompt"
    BOTH = "both"


@with_progress_options
def attack(
    context: typer.Context,
    edit: EditArgument,
    out: Annotated[
        Path | None, typer.Option(help="The attack's folder.", show_default="EDIT/attack")
    ] = None,
    concept: Annotated[
        list[str] | None,
        typer.Option(help="Concept of the edit; repeatable.", show_default="all"),
    ] = None,
    method: Annotated[
        Method,
        typer.Option(
            metavar="METHOD",
            help="Search for an embedding, a prompt of other words, or both.",
        ),
    ] = Method.BOTH,
    iterations: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Steps of each search.", show_default="100"),
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, max=100_000, help="Images that judge each success.")
    ] = 32,
    scorer: ScorerOption = None,
    actors: ActorsOption = None,
    device: DeviceOption = None,
    address: AddressOption = None,
    wait: WaitOption = True,
    retry_failed: RetryOption = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Try to draw the concepts of an edit again, and print how often this succeeds.

    Success is the share of images that the scorer takes for the concept among all names of its
    kind: before the edit and after it, then with an optimized embedding in the concept's place, and
    with other words that a search found. Both attacks are tried on the unedited model too. The same
    command continues where it was cut short. It writes `attack.json` and the tables in `parts/`
    into the folder; docs/limits-of-an-edit.md explains them.
    """
    note(f"opening edit {edit}")
    from jobs.cluster.address import check_address
    from jobs.cluster.submission import is_job_address

    if not (address and is_job_address(address)):
        check_is_edit(edit)
    from jobs.evaluation.attack import attack_edit, attack_rows, prepare_attack, summary_rows
    from jobs.evaluation.attack_plan import AttackRequest
    from schemas.attack import Attack

    folder = out or edit / "attack"
    if address and is_job_address(address):
        words = arguments(context, {"out": folder})
        follow_as_job(words, address=address, out=folder, waits=wait)
    if address:
        check_address(address)
    both = (Attack.EMBEDDING, Attack.PROMPT)
    request = AttackRequest(
        edit=edit,
        concepts=tuple(concept or ()),
        attacks=both if method is Method.BOTH else (Attack(method.value),),
        seeds=images,
        steps=iterations,
        scorer=scorer,
    )
    cluster = cluster_on(device, address=address, actors=actors)
    run = prepare_attack(request, folder)
    with driven(run, address=address, doing="attacking") as show:
        end = attack_edit(
            run,
            edit,
            cluster=cluster,
            retry_failed=retry_failed,
            on_progress=show,
            note=note,
        )
    say_end(run, end)
    rows = attack_rows(run)
    shown = summary_rows(rows) if output_format.is_for_people else [asdict(row) for row in rows]
    print_rows(shown, output_format)
    end_as(end)
