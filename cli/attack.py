"""`dqf edit attack`: how an edit holds where someone tries to draw its concepts again."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.options.evaluation import ScorerOption
from cli.printing.output import Format, FormatOption, note, print_rows
from cli.printing.progress import progress_bar


class AttackKind(StrEnum):
    """Which attacks are made."""

    EMBEDDING = "embedding"
    PROMPT = "prompt"
    BOTH = "both"


def attack(
    edit: Annotated[
        Path, typer.Argument(metavar="EDIT", help="An edit's folder: edit.json, edit.safetensors.")
    ],
    concept: Annotated[
        list[str] | None, typer.Option(help="Concept of the edit; may be repeated; all if none.")
    ] = None,
    kind: Annotated[
        AttackKind, typer.Option(help="An embedding, a prompt of other words, or both.")
    ] = AttackKind.BOTH,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of either attack; 100 by default.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Images that each success is judged by.")] = 32,
    scorer: ScorerOption = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Try to draw the concepts of an edit again, and tell how often it succeeds.

    Success is the share of images that the scorer takes for the concept among all names of its
    kind: before the edit and after it, then with an optimized embedding in the concept's place, and
    with other words that were searched for. Both are tried on the unedited model too. The same
    command goes on where it was cut short. Rows are added to EDIT/attack.parquet and attack.json;
    docs/limits-of-an-edit.md says what they mean.
    """
    from jobs.evaluation.attack import attack_edit
    from jobs.evaluation.attack_plan import AttackRequest, plan_attack
    from jobs.evaluation.attack_table import summary_rows
    from schemas.attack import Attack

    both = (Attack.EMBEDDING, Attack.PROMPT)
    request = AttackRequest(
        edit=edit,
        concepts=tuple(concept or ()),
        attacks=both if kind is AttackKind.BOTH else (Attack(kind.value),),
        seeds=seeds,
        steps=steps,
        scorer=scorer,
    )
    job = plan_attack(request)
    with progress_bar("attacking", "steps") as show:
        rows = attack_edit(job, on_progress=show, note=note)
    print_rows(summary_rows(rows) if output_format.is_for_people else rows, output_format)
