"""Attacking an edit: what is written, going on where it stopped, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.evaluation.inversion import InversionBudget
from engine.evaluation.prompt_search import SearchBudget
from engine.evaluation.recognition import Share, choice_texts
from engine.model.vocabulary import Phrasebook
from jobs.editing.edit import edit_batch
from jobs.editing.plan import EditPlan
from jobs.evaluation.attack import attack_edit
from jobs.evaluation.attack_plan import AttackJob, AttackRequest, plan_attack
from jobs.evaluation.attack_table import SUMMARY, TABLE, summary_rows
from jobs.runs.progress import Progress
from schemas.attack import ATTACKS, Attack, Side
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


def small_job(edit: Path, scorer: Path, **changes: object) -> AttackJob:
    request = AttackRequest(edit=edit, seeds=3, steps=2, scorer=str(scorer))
    job = plan_attack(replace(request, **changes))
    return replace(
        job,
        numerics=Numerics(steps=2),
        inversion=InversionBudget(steps=2, batch=2, images=2),
        search=SearchBudget(steps=2, tokens=2, candidates=8),
    )


def run(job: AttackJob) -> tuple[list[dict[str, object]], list[Progress]]:
    seen: list[Progress] = []
    return attack_edit(job, on_progress=seen.append, note=lambda line: None), seen


def test_rows_of_every_attack_on_both_models_are_written(edit: Path, tiny_scorer: Path) -> None:
    rows, seen = run(small_job(edit, tiny_scorer))
    assert seen[-1].done == seen[-1].total == 2 * 2 * (2 + 2)
    told = [(row["concept"], row["side"], row["attack"]) for row in rows]
    assert told == [(c, s, a) for c in ("apple", "castle") for s in Side for a in Attack]
    table = pq.read_table(edit / TABLE)
    assert table.schema.equals(ATTACKS, check_metadata=True)
    assert table.to_pylist() == rows == json.loads((edit / SUMMARY).read_text())
    for row in rows:
        assert 0 <= row["low"] <= row["success"] <= row["high"] <= 1  # type: ignore[operator]
        assert row["images"] == 3
    assert [row["concept"] for row in summary_rows(rows)] == ["apple", "castle"]


def test_it_goes_on_where_it_stopped_and_repeats_nothing(edit: Path, tiny_scorer: Path) -> None:
    first, _ = run(small_job(edit, tiny_scorer, concepts=("castle",)))
    both, seen = run(small_job(edit, tiny_scorer))
    assert [row for row in both if row["concept"] == "castle"] == first
    assert seen[-1].total == 2 * (2 + 2)
    again, nothing = run(small_job(edit, tiny_scorer))
    assert again == both
    assert nothing == []
    # Another budget is another attack, whose rows stand beside the first ones.
    run(replace(small_job(edit, tiny_scorer, concepts=("apple",)), seeds=2))
    assert len(pq.read_table(edit / TABLE)) == len(both) + len(both) // 2


def test_one_kind_of_attack_alone(edit: Path, tiny_scorer: Path) -> None:
    job = small_job(edit, tiny_scorer, concepts=("Apple",), attacks=(Attack.PROMPT,))
    rows, _ = run(job)
    assert [row["attack"] for row in rows] == ["plain", "prompt"] * 2
    assert set(summary_rows(rows)[0]) >= {"before", "after", "prompt", "prompt, unedited"}


def test_what_cannot_be_attacked_is_refused_before_a_model_loads(
    edit: Path, tiny_scorer: Path, tmp_path: Path
) -> None:
    request = AttackRequest(edit=edit, scorer=str(tiny_scorer))
    with pytest.raises(ConceptError, match="no concept 'dog': it has apple, castle"):
        plan_attack(replace(request, concepts=("dog",)))
    with pytest.raises(ConceptError, match="no edit folder"):
        plan_attack(replace(request, edit=tmp_path))
    with pytest.raises(ModelUnavailable, match="nowhere"):
        plan_attack(replace(request, scorer="nowhere"))
    assert not (edit / TABLE).exists()


def test_damaged_table_is_left_alone(edit: Path, tiny_scorer: Path) -> None:
    (edit / TABLE).write_bytes(b"mine")
    with pytest.raises(StoreError, match="delete it to attack again"):
        run(small_job(edit, tiny_scorer))
    assert (edit / TABLE).read_bytes() == b"mine"


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
    planned = plan_attack(AttackRequest(edit=edit, seeds=16))
    rows, _ = run(replace(planned, numerics=Numerics(steps=8, guidance=3.0)))
    success = {(row["side"], row["attack"]): float(str(row["success"])) for row in rows}
    assert success[Side.UNEDITED, Attack.PLAIN] > 0.9 > 0.1 > success[Side.EDITED, Attack.PLAIN]
    assert success[Side.EDITED, Attack.RANDOM] < 0.2
    for side in Side:
        assert success[side, Attack.EMBEDDING] > 0.8
        assert success[side, Attack.PROMPT] > success[Side.EDITED, Attack.PLAIN]
