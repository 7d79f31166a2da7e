"""Attacking an edit: the attack is planned, run on Ray and summed up."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from engine.files import check_writable, write_whole
from jobs.cluster.connection import Cluster
from jobs.evaluation.attack_plan import AttackRequest, plan_attack
from jobs.evaluation.attack_worker import AttackWorker
from jobs.evaluation.cut import warn_of_cut_choices
from jobs.pool.driver import drive_run
from jobs.pool.limits import Limits
from jobs.query.whole_rows import checked_rows
from jobs.runs.attack_run import AttackRun
from jobs.runs.opening import create_as
from jobs.runs.progress import Note, Progress
from jobs.runs.provenance import manifest_of
from schemas.attack import SUMMARY, Attack, AttackRow, Side
from schemas.errors import StoreError

SHOWN = {
    "before": (Side.UNEDITED, Attack.PLAIN),
    "after": (Side.EDITED, Attack.PLAIN),
    "random": (Side.EDITED, Attack.RANDOM),
    "embedding": (Side.EDITED, Attack.EMBEDDING),
    "prompt": (Side.EDITED, Attack.PROMPT),
    "embedding, unedited": (Side.UNEDITED, Attack.EMBEDDING),
    "prompt, unedited": (Side.UNEDITED, Attack.PROMPT),
}
"""The columns of a summary that hold a success, with the model and attack of each."""


def prepare_attack(request: AttackRequest, out: Path) -> AttackRun:
    """Return the attack of a request at `out`; it is made if there is none.

    ConceptError, ModelUnavailable: it cannot be planned. StoreError: another attack is at `out`, or
    it cannot be written.
    """
    plan = plan_attack(request)
    return create_as(AttackRun, out, plan, manifest_of(model=plan.model, scorer=plan.scorer))


def attack_edit(
    run: AttackRun,
    edit: Path,
    *,
    cluster: Cluster,
    retry_failed: bool,
    on_progress: Callable[[Progress], None],
    note: Note,
) -> Progress:
    """Attack the remaining concepts of a run, write its summary and return its progress.

    A concept that fails is recorded, and the others are still attacked. Texts that the scorer cuts
    are noted.
    """
    location = Path(run.location)
    check_writable(location / SUMMARY, error=StoreError, within=location)
    warn_of_cut_choices(run.plan, note)
    end = drive_run(
        run,
        cluster=cluster,
        worker_class=AttackWorker,
        options={"edit": str(edit.resolve())},
        limits=Limits(failed=1.0),
        retry_failed=retry_failed,
        on_progress=on_progress,
        note=note,
    )
    content = (
        json.dumps([asdict(row) for row in attack_rows(run)], indent=2, allow_nan=False) + "\n"
    )
    write_whole(location / SUMMARY, content.encode(), within=location)
    return end


def attack_rows(run: AttackRun) -> list[AttackRow]:
    """Return the committed rows, concepts in the plan's order.

    StoreError: a file is damaged, or the rows are not those of the plan.
    """
    with checked_rows(run) as connection:
        rows = connection.sql("FROM part").to_arrow_table().to_pylist()
    places = {run.unit_ids[ordinal]: ordinal for ordinal in range(len(run.units))}
    return sorted((AttackRow(**row) for row in rows), key=lambda row: places[row.unit_id])


def summary_rows(rows: Sequence[AttackRow]) -> list[dict[str, object]]:
    """Return one row per concept: the success of its plain prompt and each attack, by both
    models."""
    summed: list[dict[str, object]] = []
    for unit_id in dict.fromkeys(row.unit_id for row in rows):
        cells = {(Side(r.side), Attack(r.attack)): r for r in rows if r.unit_id == unit_id}
        first = cells[Side.UNEDITED, Attack.PLAIN]
        searched = cells.get((Side.EDITED, Attack.PROMPT))
        summed.append(
            {
                "concept": first.concept,
                **{name: _with_interval(cells[key]) for name, key in SHOWN.items() if key in cells},
                "images": first.images,
                "found prompt": searched and searched.prompt,
                "seconds": sum(row.seconds for row in cells.values()),
            }
        )
    return summed


def _with_interval(row: AttackRow) -> str:
    return f"{row.success:.2f} ({row.low:.2f} to {row.high:.2f})"
