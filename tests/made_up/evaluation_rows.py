"""Evaluations whose images are made up: of each name, how many were right before and after."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.runs.evaluation_run import EDIT, EvaluationRun
from jobs.runs.opening import create_as
from jobs.runs.run import Row, Task
from schemas.concept import ConceptKind
from schemas.evaluation import EvaluationPlan, EvaluationPrompt, Group, Subject
from schemas.numerics import Numerics
from tests.made_up.small_run import make_run

OBJECT = ConceptKind.OBJECT
OTHER = "other"
"""What an image shows that does not show its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The images of a name: so many, so many of them right before, of these so many right after."""

    name: str
    images: int
    before: int
    after: int
    replacement: str | None = None
    replaced: int = 0
    """How many of the images right before show the replacement after the edit."""
    nearest: str | None = None
    """The nearest concept of a kept name; None for a concept."""


def make_evaluation(folder: Path, drawn: Sequence[Drawn]) -> EvaluationRun:
    """Return an evaluation whose rows are as `drawn` says, one prompt an image."""
    plan = EvaluationPlan(
        edits={EDIT: "d"},
        model="builtin:emoji-sd",
        scorer="builtin:emoji-sd",
        concepts={OBJECT: tuple(d.name for d in drawn if d.nearest is None)},
        names={OBJECT: (*(d.name for d in drawn), OTHER)},
        subjects=tuple(
            Subject(name=d.name, kind=OBJECT, replacement=d.replacement, prompts=tuple(_prompts(d)))
            for d in drawn
        ),
        seeds=(0,),
        numerics=Numerics(steps=2),
    )
    run = create_as(EvaluationRun, folder, plan, make_run(folder.parent / "r").manifest)
    by_name = {d.name: d for d in drawn}
    for chunk in range(run.num_chunks):
        (unit,) = run.unit_rows(Task(chunk=chunk))
        rows = _rows(unit.unit_id, by_name[unit.unit.subject.name])
        run.commit(Task(chunk=chunk), rows, [], units=1)
    return run


def _prompts(drawn: Drawn) -> list[EvaluationPrompt]:
    group = Group.CONCEPT if drawn.nearest is None else Group.KEPT
    return [
        EvaluationPrompt(group=group, text=f"{drawn.name} {n}", kind=OBJECT, name=drawn.name)
        for n in range(drawn.images)
    ]


def _rows(unit_id: str, drawn: Drawn) -> list[Row]:
    gone = [drawn.replacement or OTHER] * drawn.replaced
    return [
        {
            "unit_id": unit_id,
            "edit": EDIT,
            "subject": drawn.name,
            "subject_kind": "object",
            "replacement": drawn.replacement,
            "nearest_concept": drawn.nearest,
            "nearness": 0.5 if drawn.nearest else None,
            "group": prompt.group.value,
            "prompt": prompt.text,
            "kind": "object",
            "name": drawn.name,
            "seed": 0,
            "chosen_before": drawn.name if n < drawn.before else OTHER,
            "chosen_after": (
                drawn.name
                if n < drawn.after
                else (gone[n - drawn.after] if n - drawn.after < len(gone) else OTHER)
            ),
            "clip_before": 0.3,
            "clip_after": 0.2,
            "similarity": 0.9,
        }
        for n, prompt in enumerate(_prompts(drawn))
    ]
