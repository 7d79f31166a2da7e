"""An evaluation: what is drawn, what is measured, and edits whose measures are known."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.editing.delta_file import DELTA
from engine.evaluation.pairs import judged
from engine.model.scorer import open_scorer
from jobs.cluster.connection import Cluster
from jobs.editing.manifest import MANIFEST
from jobs.editing.update import with_added
from jobs.evaluation.attack_plan import AttackRequest, plan_attack
from jobs.evaluation.evaluate import (
    EvaluationRequest,
    draw_pictures,
    evaluate,
    plan_evaluation,
    prepare_evaluation,
    write_summary,
)
from jobs.evaluation.measures import results
from jobs.evaluation.worker import EvaluationWorker
from jobs.runs.evaluation_run import EDIT, EvaluationRun, open_evaluation, open_evaluation_of
from jobs.runs.progress import progress_of
from jobs.runs.run import Task
from schemas.concept import Concept, ConceptKind
from schemas.errors import ConceptError, StoreError
from schemas.evaluation import EvaluationPrompt, Group
from schemas.prompt_set import PromptSet
from schemas.results import SUMMARY, GroupResult
from tests.made_up.evaluated import few_names, write_edit
from tests.made_up.evaluation_rows import Drawn, make_evaluation


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_names(tmp_path_factory.mktemp("models") / "few")


def request_of(edit: Path, **changes: Any) -> EvaluationRequest:
    fields: dict[str, Any] = {"seeds": 2, "steps": 6, "scorer": "builtin:emoji-sd"}
    return EvaluationRequest(edit=edit, **(fields | changes))


def evaluated(edit: Path, **changes: object) -> EvaluationRun:
    """Return a whole evaluation, made by one worker in this process."""
    run = prepare_evaluation(request_of(edit, **changes), edit / "evaluation")
    run.complete()
    worker = EvaluationWorker(run.location, edits={EDIT: str(edit)}, threads=1)
    for chunk in range(run.num_chunks):
        assert not worker.run(Task(chunk=chunk)).errors
    return run


def by_group(run: EvaluationRun) -> dict[str, GroupResult]:
    return {result.group: result for result in results(run)}


def test_an_edit_that_changes_nothing_keeps_everything(model: Path, tmp_path: Path) -> None:
    edit = write_edit(tmp_path / "edit", model, lambda weight: weight)
    run = evaluated(edit, steps=2, seeds=1)
    found = by_group(run)
    for result in found.values():
        assert result.after == result.before or result.group == "harmonic mean"
        assert result.of_right in (None, 1.0) or result.group == "harmonic mean"
        assert result.clip_after == result.clip_before
        assert result.similarity in (None, 1.0)
    assert found["still_recognised"].of_right == 1.0
    assert found["harmonic mean"].of_right == 0.0
    assert found["general"].cmmd == 0.0
    # The replacement's own names are the four that no concept says; a third of them are neighbors.
    assert (found["kept"].names, found["neighbor"].names) == (4, 2)
    assert found["concept"].as_replacement is not None
    write_summary(run, results(run), progress_of(run))
    draw_pictures(run)
    assert (edit / "evaluation" / "evaluation.json").is_file()
    pictures = {path.stem for path in (edit / "evaluation" / "images").glob("*.png")}
    drawn = {group for group, result in found.items() if result.images}
    assert pictures == drawn - {"still_recognised", "neighbor"}
    assert found["object"] == GroupResult(group="object")
    part = Path(run.storage.local(run.live().names)[0])
    whole = part.read_bytes()
    for content in (b"", whole[:-100], whole[: len(whole) // 2], b"PAR1" * 50):
        part.write_bytes(content)
        with pytest.raises(StoreError, match=rf"{part.name} is damaged .*`dqf doctor .* --repair`"):
            results(run)
        with pytest.raises(StoreError, match=rf"{part.name} is damaged"):
            draw_pictures(run)


def test_a_destroyed_layer_loses_what_is_kept(model: Path, tmp_path: Path) -> None:
    edit = write_edit(tmp_path / "edit", model, torch.zeros_like)
    found = by_group(evaluated(edit, prompts=PromptSet.SMALL, seeds=1, steps=3))
    kept, general = found["kept"], found["general"]
    assert kept.before is not None
    assert kept.after is not None
    assert kept.after < 0.5 < kept.before
    assert general.cmmd is not None
    assert general.cmmd > 0.5
    assert found["style"].images is None


def test_a_unit_that_fails_is_recorded_and_the_rest_is_measured(
    model: Path, tmp_path: Path
) -> None:
    edit = write_edit(tmp_path / "edit", model, lambda weight: weight)
    request = request_of(edit, seeds=1, steps=1, prompts=PromptSet.SMALL)
    run = prepare_evaluation(request, edit / "evaluation")
    run.complete()
    broken, sound = (
        EvaluationWorker(run.location, edits={EDIT: str(edit)}, threads=1) for _ in range(2)
    )
    broken._tracer._edits = {EDIT: {"no such weight": torch.zeros(1)}}  # pyright: ignore
    for chunk in range(run.num_chunks):
        done = (broken if chunk == 2 else sound).run(Task(chunk=chunk))
        assert done.errors == (("ValueError",) if chunk == 2 else ())
    assert [failure.error for failure in run.failures()] == ["ValueError"]
    before = by_group(run)["kept"].images
    sound.run(Task(chunk=2, generation=1))
    assert not run.failures()
    after = by_group(run)["kept"].images
    assert before is not None
    assert after == before + 1


def test_a_measure_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    run = make_evaluation(tmp_path / "evaluation", [Drawn(name="cat", images=2, before=2, after=0)])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_summary(run, [GroupResult(group="kept", of_right=math.nan)], progress_of(run))
    assert not (tmp_path / "evaluation" / SUMMARY).exists()


def test_another_evaluation_is_not_mixed_in(model: Path, tmp_path: Path) -> None:
    edit = write_edit(tmp_path / "edit", model, lambda weight: weight)
    out = edit / "evaluation"
    prepare_evaluation(request_of(edit), out)
    prepare_evaluation(request_of(edit), out)
    with pytest.raises(StoreError, match="another numerics: choose another --out"):
        prepare_evaluation(request_of(edit, steps=7), out)
    other = write_edit(tmp_path / "other", model, torch.zeros_like)
    with pytest.raises(StoreError, match="another edits"):
        prepare_evaluation(request_of(other), out)
    with pytest.raises(StoreError, match="exists and holds no evaluation"):
        prepare_evaluation(request_of(edit), edit)
    with pytest.raises(ConceptError, match=r"no file edit\.safetensors"):
        prepare_evaluation(request_of(model), tmp_path / "out")
    with pytest.raises(StoreError, match="dqf edit evaluate"):
        open_evaluation(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_delta_is_refused_before_a_run_is_made(model: Path, tmp_path: Path) -> None:
    edit = write_edit(tmp_path / "edit", model, lambda weight: weight)
    for content in (b"", (edit / DELTA).read_bytes()[:-100]):
        (edit / DELTA).write_bytes(content)
        with pytest.raises(ConceptError, match=f"{edit / DELTA} is damaged"):
            prepare_evaluation(request_of(edit), edit / "evaluation")
        with pytest.raises(ConceptError, match=f"{edit / DELTA} is damaged"):
            plan_attack(AttackRequest(edit=edit))
    assert not (edit / "evaluation").exists()


def test_files_of_two_edits_are_not_read_as_one(model: Path, tmp_path: Path) -> None:
    cat = (Concept(concept="cat", replacement="dog"),)
    one = write_edit(tmp_path / "one", model, lambda weight: weight)
    other = write_edit(tmp_path / "other", model, torch.zeros_like, cat)
    run = prepare_evaluation(request_of(one), tmp_path / "evaluation")
    with pytest.raises(ConceptError, match="has the results of another edit than"):
        open_evaluation_of(other, run.location)
    with pytest.raises(ConceptError, match="has the results of another edit than"):
        evaluate(run, other, cluster=Cluster(), retry_failed=False, on_progress=print, note=print)
    for name in (MANIFEST, DELTA):
        mixed = tmp_path / name.replace(".", "-")
        shutil.copytree(one, mixed)
        shutil.copy(other / name, mixed / name)
        with pytest.raises(ConceptError, match=r"does not describe, as if they were of two edits"):
            prepare_evaluation(request_of(mixed), mixed / "evaluation")
        with pytest.raises(ConceptError, match=r"does not describe, as if they were of two edits"):
            plan_attack(AttackRequest(edit=mixed))


def test_an_edit_of_a_model_that_has_changed_is_refused(tmp_path: Path) -> None:
    changed = few_names(tmp_path / "model")
    edit = write_edit(tmp_path / "edit", changed, lambda weight: weight)
    config = changed / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + "\n")
    (tmp_path / "more.csv").write_text("concept\nbanana\n")
    with pytest.raises(ConceptError, match="has changed since the edit was made of it"):
        prepare_evaluation(request_of(edit), edit / "evaluation")
    with pytest.raises(ConceptError, match="has changed since the edit was made of it"):
        with_added(edit, tmp_path / "more.csv", out=tmp_path / "new", images=0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"seeds": 0}, "seeds: .*got 0"),
        ({"seeds": 10**9}, "seeds: .*got 1000000000"),
        ({"steps": 0}, "steps: .*got 0"),
        ({"prompts": "medium"}, "prompts: .* 'full' or 'small'"),
        ({"scorer": ""}, "scorer: "),
    ],
)
def test_a_request_of_other_values_is_refused(
    fields: dict[str, Any], said: str, model: Path, tmp_path: Path
) -> None:
    edit = write_edit(tmp_path / "edit", model, lambda weight: weight)
    with pytest.raises(ConceptError, match=said):
        prepare_evaluation(request_of(edit, **fields), tmp_path / "evaluation")


def test_a_set_of_prompts_is_the_same_by_its_name(model: Path, tmp_path: Path) -> None:
    edit = write_edit(tmp_path / "edit", model, lambda weight: weight)
    by_name: Any = "full"
    assert plan_evaluation(request_of(edit, prompts=by_name)) == plan_evaluation(request_of(edit))


def test_an_evaluation_without_its_parts_is_not_whole(model: Path, tmp_path: Path) -> None:
    edit = write_edit(tmp_path / "edit", model, lambda weight: weight)
    run = prepare_evaluation(request_of(edit), tmp_path / "evaluation")
    shutil.rmtree(Path(run.location) / "parts")
    with pytest.raises(StoreError, match="is not whole"):
        results(run)


def test_a_delta_of_another_model_is_refused(model: Path, tmp_path: Path) -> None:
    edit = write_edit(tmp_path / "edit", model, lambda weight: weight)
    run = prepare_evaluation(request_of(edit), edit / "evaluation")
    replacement = write_edit(tmp_path / "other", model, torch.zeros_like)
    with pytest.raises(ConceptError, match="is not the one that is evaluated"):
        EvaluationWorker(run.location, edits={EDIT: str(replacement)}, threads=1)


def test_a_model_without_a_vocabulary_and_a_single_person(
    tiny_sd: Path, tiny_scorer: Path, tmp_path: Path
) -> None:
    concepts = (
        Concept(concept="Ada Lovelace", kind=ConceptKind.PERSON),
        Concept(concept="apple", replacement="castle"),
    )
    edit = write_edit(tmp_path / "edit", tiny_sd, lambda weight: weight * 2, concepts)
    request = request_of(edit, scorer=str(tiny_scorer), seeds=1, steps=1, prompts=PromptSet.SMALL)
    run = prepare_evaluation(request, edit / "evaluation")
    run.complete()
    worker = EvaluationWorker(run.location, edits={EDIT: str(edit)}, threads=1)
    for chunk in range(run.num_chunks):
        assert not worker.run(Task(chunk=chunk)).errors
    found = by_group(run)
    # Nothing is chosen between a single person and nobody else: three prompts of an object count.
    assert found["still_recognised"].images == 6
    assert found["still_recognised"].right_before is not None
    person = EvaluationPrompt(
        group=Group.CONCEPT, text="x", template="{name}", kind=ConceptKind.PERSON, name="x"
    )
    assert run.plan.names[ConceptKind.PERSON] == ("Ada Lovelace",)
    image = torch.zeros(1, 3, 16, 16)
    side = judged(
        image,
        [person],
        [person.template],
        names=run.plan.names,
        scorer=open_scorer(str(tiny_scorer)),
    )
    assert side[0].chosen is None
    assert found["concept"].after_low is None
    assert (found["kept"].names, found["neighbor"].names) == (62, 3)
    assert found["general"].images == 32
    assert len(run.plan.names[ConceptKind.OBJECT]) == 63
