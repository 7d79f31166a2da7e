"""A sweep: its grid, the edits that it makes once, and which of them are marked as best."""

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
import torch
from safetensors.torch import load_file

from engine.editing.delta_file import DELTA
from jobs.editing.edit import edit_batch
from jobs.editing.manifest import read_manifest
from jobs.editing.update import with_added, with_removed
from jobs.evaluation.evaluate import EvaluationSettings
from jobs.evaluation.measures import results
from jobs.evaluation.sweep import Anchor, Grid, marked, prepare_sweep, settings_of
from jobs.evaluation.worker import EvaluationWorker
from jobs.runs.run import Task
from schemas.concept import Concept
from schemas.errors import ConceptError, DqfError, UnknownComponent
from schemas.prompt_set import PromptSet
from schemas.results import SweepResult
from tests.made_up.evaluated import few_names

SCORER = "builtin:emoji-sd"
LAYER = "text_encoder.layers.0.self_attn"
CONCEPTS = (Concept(concept="cat", replacement="bus"), Concept(concept="house"))


def result(edit: str, *, still_recognised: float, kept: float, cmmd: float | None) -> SweepResult:
    measured = dict.fromkeys(SweepResult.__dataclass_fields__) | {"edit": edit, "is_best": False}
    measured |= {"still_recognised_of_right": still_recognised, "kept_of_right": kept, "cmmd": cmmd}
    return SweepResult(**measured | {"harmonic_of_right": kept - still_recognised})  # pyright: ignore


def test_what_another_beats_is_not_marked() -> None:
    found = marked(
        [
            result("worse", still_recognised=0.1, kept=0.9, cmmd=2.0),
            result("good", still_recognised=0.1, kept=0.9, cmmd=1.0),
            result("keeps", still_recognised=0.3, kept=0.95, cmmd=1.5),
            result("same", still_recognised=0.1, kept=0.9, cmmd=1.0),
        ]
    )
    assert [t.edit for t in found] == ["good", "same", "worse", "keeps"]
    assert [t.edit for t in found if t.is_best] == ["good", "same", "keeps"]


def test_a_grid_is_every_combination_once() -> None:
    grid = Grid(
        components=(LAYER,), anchors=tuple(Anchor), strengths=(1.0, 6.0), ridges=(1e-3,),
        roles=("all",),
    )  # fmt: skip
    names = [setting.name for setting in settings_of(grid)]
    assert len(names) == len(set(names)) == 5
    assert "identity-ridge-0.001-all" in names
    assert "kept-6-ridge-0.001-all" in names
    with pytest.raises(ConceptError, match="unknown roles 'no': give all"):
        settings_of(replace(grid, roles=("no",)))
    with pytest.raises(ConceptError, match="2 settings have one name, kept-1-ridge"):
        settings_of(replace(grid, anchors=(Anchor.KEPT,), strengths=(1.0, 1.0000001)))
    values = tuple(float(n) for n in range(1, 201))
    with pytest.raises(ConceptError, match="the grid has 40,000 edits, at most 1000"):
        settings_of(replace(grid, anchors=(Anchor.KEPT,), strengths=values, ridges=values))


@pytest.mark.parametrize(
    ("name", "scorer", "said"),
    [
        ("plan.json", SCORER, "exists and holds no sweep"),
        ("edit.json", SCORER, "exists and holds no sweep"),
        ("notes.txt", SCORER, "exists and holds no sweep"),
        (None, "nope", "unknown scorer 'nope'"),
    ],
)
def test_nothing_is_made_where_no_sweep_can_be(
    name: str | None, scorer: str, said: str, tmp_path: Path
) -> None:
    if name:
        (tmp_path / name).write_text("{}")
    grid = Grid(components=(LAYER,), strengths=(1.0,), ridges=(1e-3,))
    asked = EvaluationSettings(seeds=1, steps=1, scorer=scorer)
    with pytest.raises(DqfError, match=said):
        prepare_sweep(CONCEPTS, grid, tmp_path, model="emoji-sd", asked=asked, note=print)
    assert [path.name for path in tmp_path.iterdir()] == ([name] if name else [])
    with pytest.raises(ConceptError, match="must be positive"):
        settings_of(replace(grid, ridges=(0.0,)))


def test_edits_are_made_once_and_share_the_unedited_images(tmp_path: Path) -> None:
    model = str(few_names(tmp_path / "few"))
    out = tmp_path / "sweep"
    asked = EvaluationSettings(seeds=1, steps=1, scorer=SCORER, prompts=PromptSet.SMALL)
    grid = Grid(
        components=(LAYER,), anchors=tuple(Anchor), strengths=(6.0,), ridges=(1e-3,)
    )  # fmt: skip
    said: list[str] = []
    with pytest.raises(UnknownComponent):
        prepare_sweep(
            CONCEPTS,
            replace(grid, components=("no.layer",)),
            out,
            model=model,
            asked=asked,
            note=said.append,
        )
    assert not out.exists()
    run = prepare_sweep(CONCEPTS, grid, out, model=model, asked=asked, note=said.append)
    assert len(said) == 4
    assert (
        prepare_sweep(CONCEPTS, grid, out, model=model, asked=asked, note=said.append).id == run.id
    )
    assert len(said) == 4
    folders = {name: str(out / "edits" / name) for name in run.plan.edits}
    assert read_manifest(Path(folders["kept-6-ridge-0.001-all"])).concepts == CONCEPTS
    run.complete()
    worker = EvaluationWorker(run.location, edits=folders, threads=1)
    for chunk in range(3):
        assert not worker.run(Task(chunk=chunk)).errors
    paths = [str(path) for path in run.storage.local(run.live().names)]
    sides = duckdb.execute(
        "SELECT count(*), count(DISTINCT edit), count(DISTINCT clip_before), count(DISTINCT "
        f"clip_after) FROM read_parquet({paths}) GROUP BY prompt"
    ).fetchall()
    assert all((rows, edits, before) == (3, 3, 1) for rows, edits, before, _ in sides)
    assert any(after == 3 for *_, after in sides)
    assert {r.group for r in results(run, "kept-6-ridge-0.001-all")} >= {
        "still_recognised",
        "concept",
    }
    with pytest.raises(ConceptError, match="an edit of other concepts: choose"):
        prepare_sweep(CONCEPTS[:1], grid, out, model=model, asked=asked, note=said.append)
    elsewhere = replace(grid, components=("text_encoder.layers.0.mlp",))
    with pytest.raises(ConceptError, match="an edit of other settings: choose"):
        prepare_sweep(CONCEPTS, elsewhere, out, model=model, asked=asked, note=said.append)


def test_edits_of_a_sweep_are_added_to_and_taken_from(tmp_path: Path) -> None:
    model = str(few_names(tmp_path / "few"))
    out = tmp_path / "sweep"
    asked = EvaluationSettings(seeds=1, steps=3, scorer=SCORER)
    grid = Grid(components=(LAYER,), anchors=(Anchor.GENERAL,), strengths=(6.0,), ridges=(1e-3,),
                roles=("few-pads",))  # fmt: skip
    prepare_sweep(CONCEPTS, grid, out, model=model, asked=asked, note=print)
    (swept,) = (out / "edits").iterdir()
    more = tmp_path / "more.csv"
    more.write_text("concept,replacement\nguitar,dog\n")
    longer, shorter = tmp_path / "longer", tmp_path / "shorter"
    edit_batch(with_added(swept, more, out=longer, images=0), note=print)
    edit_batch(with_removed(longer, ["guitar"], out=shorter, images=0), note=print)
    made, added, taken = map(read_manifest, (swept, longer, shorter))
    assert made.settings.general == 6.0
    assert made.settings.roles.pads == 0.1
    assert made.settings == added.settings == taken.settings
    assert added.concepts == (*CONCEPTS, Concept(concept="guitar", replacement="dog"))
    first, middle, last = (load_file(folder / DELTA) for folder in (swept, longer, shorter))
    assert all(torch.equal(first[name], last[name]) for name in first)
    assert not any(torch.equal(first[name], middle[name]) for name in first)
