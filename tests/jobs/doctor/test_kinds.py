"""Evaluations and attacks are examined as traces are, and damage is found in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.doctor.examine import Report, examine, repair
from jobs.doctor.findings import State
from jobs.runs.attack_run import AttackRun
from jobs.runs.evaluation_run import EvaluationRun
from jobs.runs.kinds import open_any
from jobs.runs.opening import create_as
from jobs.runs.packs import pack
from jobs.runs.parts import Failure
from jobs.runs.run import Row, Run, Task
from jobs.tracing.status import status_of
from schemas.attack import Attack, AttackPlan, Side
from schemas.concept import Concept, ConceptKind
from schemas.evaluation import EvaluationPlan, EvaluationPrompt, EvaluationUnit, Group, Subject
from schemas.numerics import Numerics
from tests.made_up.small_run import make_run

NAMES = {ConceptKind.OBJECT: ("cat", "dog", "bus")}
MODEL = {"model": "builtin:emoji-sd", "scorer": "builtin:emoji-sd", "names": NAMES}


def prompts(name: str) -> tuple[EvaluationPrompt, ...]:
    return tuple(
        EvaluationPrompt(group=group, text=f"a {group.value} {name}", kind=ConceptKind.OBJECT)
        for group in (Group.CONCEPT, Group.POSITION)
    )


def evaluation(folder: Path) -> tuple[Run[Any], Callable[[str, Any], list[Row]]]:
    """Return an evaluation of two edits, and what makes the rows of a unit."""
    plan = EvaluationPlan(
        edits={"a": "0", "b": "1"},
        concepts={ConceptKind.OBJECT: ("cat",)},
        subjects=tuple(
            Subject(name=name, kind=ConceptKind.OBJECT, prompts=prompts(name))
            for name in ("cat", "dog")
        ),
        seeds=(0, 1),
        numerics=Numerics(steps=2),
        **MODEL,
    )

    def rows(unit_id: str, unit: EvaluationUnit) -> list[Row]:
        shared = {"unit_id": unit_id, "subject": unit.subject.name, "seed": unit.seed}
        return [
            {
                **shared,
                "subject_kind": "object",
                "edit": edit,
                "group": prompt.group.value,
                "prompt": prompt.text,
                "kind": "object",
                "clip_before": 0.3,
                "clip_after": 0.2,
                "similarity": 0.9,
            }
            for edit in plan.edits
            for prompt in unit.subject.prompts
        ]

    return create_as(EvaluationRun, folder, plan, make_run(folder.parent / "r").manifest), rows


def attack(folder: Path) -> tuple[Run[Any], Callable[[str, Any], list[Row]]]:
    """Return an attack on two concepts, and what makes the rows of a unit."""
    plan = AttackPlan(
        edit="0",
        attacked=(Concept(concept="cat"), Concept(concept="dog"), Concept(concept="bus")),
        attacks=(Attack.EMBEDDING, Attack.PROMPT),
        seeds=4,
        numerics=Numerics(steps=2),
        **MODEL,
    )
    measured = {"shown": 1, "images": 4, "success": 0.25, "low": 0.0, "high": 0.6}

    def rows(unit_id: str, concept: Concept) -> list[Row]:
        return [
            {
                **measured,
                "unit_id": unit_id,
                "concept": concept.concept,
                "kind": concept.kind.value,
                "side": side.value,
                "attack": kind.value,
                "prompt": "p",
                "steps": 1,
                "seconds": 1.0,
            }
            for side in Side
            for kind in plan.kinds
        ]

    return create_as(AttackRun, folder, plan, make_run(folder.parent / "r").manifest), rows


Made = tuple[Run[Any], Callable[[str, Any], list[Row]]]


@pytest.fixture(params=[evaluation, attack])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    return request.param(tmp_path / "made")


def commit(made: Made, chunk: int, change: Callable[[list[Row]], list[Row]] = list) -> None:
    """Commit a chunk whose rows are `change`d."""
    run, rows_of = made
    units = run.unit_rows(Task(chunk=chunk))
    rows = [row for unit in units for row in rows_of(unit.unit_id, unit.unit)]
    run.commit(Task(chunk=chunk), change(rows), [], units=len(units))


def wrong(report: Report) -> dict[str, str]:
    assert report.is_sound == all(f.state is not State.WRONG for f in report.findings)
    return {f.check: f.found for f in report.findings if f.state is State.WRONG}


def examined(run: Run[Any]) -> Report:
    return examine(run.location, lambda progress: None)


def test_a_whole_run_is_sound_at_every_stage(made: Made) -> None:
    run, _ = made
    assert type(open_any(run.location)) is type(run)
    assert wrong(examined(run)) == {}
    assert status_of(run).state == "planned"
    for chunk in range(run.num_chunks):
        commit(made, chunk)
    assert wrong(examined(run)) == {}
    pack(run, 0)
    report = examined(run)
    assert {finding.state for finding in report.findings if finding.check != "processes"} == {
        State.OK
    }
    (progress,) = [f.found for f in report.findings if f.check == "progress"]
    units = len(run.units)
    assert progress == f"{units} units planned, {units} scored, 0 failed, 0 left"
    assert (status_of(run).done, status_of(run).state) == (units, "finished")


def changed(column: str, value: object) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [{**rows[0], column: value}, *rows[1:]]


def test_rows_that_are_not_those_of_the_plan_are_found(made: Made) -> None:
    run, _ = made
    number = "success" if isinstance(run, AttackRun) else "similarity"
    label = "concept" if isinstance(run, AttackRun) else "subject"
    damages: dict[str, tuple[Callable[[list[Row]], list[Row]], str]] = {
        "rows": (lambda rows: rows[1:], "have not as many scores"),
        "scores": (changed(number, float("nan")), "1 scores are not finite"),
        "units": (changed("unit_id", "another"), "not among those to be tried"),
    }
    for check, (change, text) in damages.items():
        commit(made, 0, change)
        assert text in wrong(examined(run))[check]
        Path(run.location, "parts", "c00000000.parquet").unlink()
    commit(made, 0, lambda rows: [{**row, label: "frog"} for row in rows])
    assert f"have another {label}" in wrong(examined(run))["units"]


def test_a_damaged_part_is_moved_away_and_made_again(made: Made) -> None:
    run, _ = made
    for chunk in range(run.num_chunks):
        commit(made, chunk)
    part = Path(run.location, "parts", "c00000001.parquet")
    part.write_bytes(part.read_bytes()[:-5])
    report = examined(run)
    assert list(wrong(report)) == ["parts"]
    assert report.damaged == ("parts/c00000001.parquet",)
    assert any("was moved to quarantine/" in line for line in repair(run, report))
    assert not part.exists()
    commit(made, 1)
    assert wrong(examined(run)) == {}


def test_a_unit_that_failed_is_no_fault(made: Made) -> None:
    run, _ = made
    (unit,) = run.unit_rows(Task(chunk=0))
    failure = Failure(unit_id=unit.unit_id, error="E", message="m", traceback="t")
    run.commit(Task(chunk=0), [], [failure], units=1)
    assert wrong(examined(run)) == {}
    assert status_of(run).failed == 1


def test_files_of_another_kind_of_run_are_foreign(made: Made) -> None:
    run, _ = made
    Path(run.location, "captions.parquet").write_bytes(b"")
    own = "attack.json" if isinstance(run, AttackRun) else "evaluation.json"
    Path(run.location, own).write_text("{}")
    (found,) = [f for f in examined(run).findings if f.check == "files"]
    assert found.state is State.NOTE
    assert found.found == "1 files that dqf did not make: captions.parquet"
