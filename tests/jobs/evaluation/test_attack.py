"""Attacking an edit: what is written, going on where it stopped, and what is refused."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from engine.editing.delta_file import DELTA
from engine.evaluation.recognition import Share, choice_texts
from engine.model.vocabulary import Phrasebook
from jobs.cluster.connection import Cluster
from jobs.editing.edit import edit_batch
from jobs.editing.plan import EditPlan
from jobs.evaluation.attack import attack_edit, attack_rows, summary_rows
from jobs.evaluation.attack_plan import AttackRequest, plan_attack
from jobs.evaluation.attack_worker import AttackWorker
from jobs.runs.attack_run import AttackRun
from jobs.runs.evaluation_run import open_evaluation
from jobs.runs.opening import create_as
from jobs.runs.progress import Progress, failed_tasks, open_tasks
from jobs.runs.provenance import manifest_of
from jobs.runs.run import Task
from schemas.attack import SUMMARY, Attack, InversionBudget, SearchBudget, Side
from schemas.concept import Concept, ConceptKind
from schemas.errors import ConceptError, ModelUnavailable, StoreError
from schemas.manifest import EditSite
from schemas.numerics import Numerics

WORDS = {"objects": ["apple", "castle", "cat"], "styles": [], "colors": ["red"]}


def write_edit(model: Path, out: Path, scorer: str, *names: str) -> Path:
    job = EditPlan(
        concepts=tuple(Concept(concept=name, replacement="cat") for name in names),
        model=str(model),
        located=EditSite(component="text_encoder.layers.0.self_attn"),
        out=out,
        numerics=Numerics(steps=2),
        scorer=scorer,
        images=0,
    )
    edit_batch(job, note=lambda line: None)
    return out


@pytest.fixture
def edit(tiny_sd: Path, tiny_scorer: Path, tmp_path: Path) -> Path:
    model = tmp_path / "model"
    shutil.copytree(tiny_sd, model)
    (model / "vocabulary.json").write_text(json.dumps(WORDS))
    return write_edit(model, tmp_path / "edit", str(tiny_scorer), "apple", "castle")


def make_run(edit: Path, scorer: Path, out: Path | None = None, **changes: object) -> AttackRun:
    """Return an attack of few steps."""
    asked = AttackRequest(edit=edit, seeds=3, scorer=str(scorer))
    plan = plan_attack(replace(asked, **changes)).model_copy(
        update={
            "numerics": Numerics(steps=2),
            "inversion": InversionBudget(steps=2, batch=2, images=2),
            "search": SearchBudget(steps=2, tokens=2, candidates=8),
        }
    )
    manifest = manifest_of(model=plan.model, scorer=plan.scorer)
    return create_as(AttackRun, out or edit / "attack", plan, manifest)


@pytest.mark.slow
def test_rows_of_every_attack_on_both_models_are_written(edit: Path, tiny_scorer: Path) -> None:
    run = make_run(edit, tiny_scorer)
    seen: list[Progress] = []
    end = attack_edit(
        run, edit, cluster=Cluster(actors=1), retry_failed=False, on_progress=seen.append,
        note=print,
    )  # fmt: skip
    assert end == seen[-1] == Progress(done=2, failed=0, total=2)
    rows = attack_rows(run)
    told = [(row.concept, row.side, row.attack) for row in rows]
    assert told == [(c, s, a) for c in ("apple", "castle") for s in Side for a in Attack]
    assert [asdict(row) for row in rows] == json.loads((edit / "attack" / SUMMARY).read_text())
    for row in rows:
        assert 0 <= row.low <= row.success <= row.high <= 1
        assert row.images == 3
    assert [row["concept"] for row in summary_rows(rows)] == ["apple", "castle"]


def test_it_continues_where_it_stopped_and_repeats_nothing(
    edit: Path, tiny_scorer: Path, tmp_path: Path
) -> None:
    run = make_run(edit, tiny_scorer)
    AttackWorker(run.location, edit=str(edit), threads=1).run(Task(chunk=1))
    assert [row.concept for row in attack_rows(run)] == ["castle"] * 8
    again = make_run(edit, tiny_scorer)
    assert again.id == run.id
    assert open_tasks(again) == [Task(chunk=0)]
    # Another process makes the same rows, all but the time that it took.
    other = make_run(edit, tiny_scorer, tmp_path / "other")
    AttackWorker(other.location, edit=str(edit), threads=2).run(Task(chunk=1))
    first, second = (
        [replace(row, seconds=0.0) for row in attack_rows(made)] for made in (run, other)
    )
    assert first == second
    with pytest.raises(StoreError, match="with another seeds: choose another --out"):
        make_run(edit, tiny_scorer, seeds=2)
    with pytest.raises(StoreError, match="is a run of another kind: this needs one that `dqf"):
        open_evaluation(run.location)


def test_a_concept_that_fails_is_recorded_and_tried_again(edit: Path, tiny_scorer: Path) -> None:
    run = make_run(edit, tiny_scorer)
    broken = run.plan.model_copy(update={"search": SearchBudget(tokens=1000)})
    run = create_as(AttackRun, edit / "broken", broken, run.manifest)
    worker = AttackWorker(run.location, edit=str(edit), threads=1)
    assert worker.run(Task(chunk=0)).errors == ("ConceptError",)
    assert [failure.unit_id for failure in run.failures()] == [run.unit_ids[0]]
    assert failed_tasks(run) == [Task(chunk=0, generation=1)]
    assert attack_rows(run) == []


def test_one_kind_of_attack_alone(edit: Path, tiny_scorer: Path) -> None:
    run = make_run(edit, tiny_scorer, concepts=("Apple",), attacks=(Attack.PROMPT,))
    AttackWorker(run.location, edit=str(edit), threads=1).run(Task(chunk=0))
    rows = attack_rows(run)
    assert [row.attack for row in rows] == ["plain", "prompt"] * 2
    assert tuple(row.attack for row in rows) == run.plan.kinds * 2
    assert set(summary_rows(rows)[0]) >= {"before", "after", "prompt", "prompt, unedited"}


def test_what_cannot_be_attacked_is_refused_before_a_model_loads(
    edit: Path, tiny_scorer: Path, tmp_path: Path
) -> None:
    request = AttackRequest(edit=edit, scorer=str(tiny_scorer))
    with pytest.raises(ConceptError, match="no concept 'dog': it has apple, castle"):
        plan_attack(replace(request, concepts=("dog",)))
    with pytest.raises(ConceptError, match="not an edit folder"):
        plan_attack(replace(request, edit=tmp_path))
    with pytest.raises(ModelUnavailable, match="nowhere"):
        plan_attack(replace(request, scorer="nowhere"))
    with pytest.raises(StoreError, match="exists and holds no attack"):
        make_run(edit, tiny_scorer, edit)
    run = make_run(edit, tiny_scorer)
    (edit / DELTA).write_bytes(b"another")
    with pytest.raises(ConceptError, match="is not the one that is evaluated"):
        AttackWorker(run.location, edit=str(edit), threads=1)


def test_a_concept_without_another_of_its_kind_cannot_be_judged() -> None:
    lonely = Concept(concept="running", kind=ConceptKind.ACTION)
    with pytest.raises(ConceptError, match="only action"):
        choice_texts(lonely, ["running"], book=Phrasebook())


@pytest.mark.parametrize(
    ("shown", "images", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (1, 10, 0.0179, 0.4042),
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_intervals_are_wilsons(shown: int, images: int, low: float, high: float) -> None:
    assert Share(shown=shown, images=images).interval == pytest.approx((low, high), abs=1e-4)


@pytest.mark.slow
def test_attacks_recover_what_an_edit_of_emoji_sd_removes(tmp_path: Path) -> None:
    edit = tmp_path / "edit"
    job = EditPlan(
        concepts=(Concept(concept="cat"),),
        model="emoji-sd",
        located=EditSite(component="text_encoder.layers.0.self_attn"),
        out=edit,
        numerics=Numerics(steps=2),
        scorer="builtin:emoji-sd",
        images=0,
    )
    edit_batch(job, note=lambda line: None)
    plan = plan_attack(AttackRequest(edit=edit, seeds=16))
    plan = plan.model_copy(update={"numerics": Numerics(steps=8, guidance=3.0)})
    manifest = manifest_of(model=plan.model, scorer=plan.scorer)
    run = create_as(AttackRun, edit / "attack", plan, manifest)
    AttackWorker(run.location, edit=str(edit), threads=2).run(Task(chunk=0))
    rows = attack_rows(run)
    success = {(row.side, row.attack): row.success for row in rows}
    assert success[Side.UNEDITED, Attack.PLAIN] > 0.9 > 0.2 > success[Side.EDITED, Attack.PLAIN]
    assert success[Side.EDITED, Attack.RANDOM] < 0.2
    for side in Side:
        assert success[side, Attack.EMBEDDING] > 0.8
        assert success[side, Attack.PROMPT] > success[Side.EDITED, Attack.PLAIN]
