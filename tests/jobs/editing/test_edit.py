"""An edit end to end: the folder that is written opens by itself and holds the edit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from engine.editing.delta import replaced
from engine.editing.editable import editable
from engine.editing.keys import kept_keys
from engine.model.opening import open_model
from engine.model.vocabulary import read_phrasebook
from jobs.cluster.connection import Cluster
from jobs.editing.check import check_edit
from jobs.editing.edit import edit_batch, solve
from jobs.editing.key_workers import shared
from jobs.editing.manifest import read_manifest
from jobs.editing.plan import EditPlan
from jobs.editing.request import EditRequest, run_edit
from jobs.editing.update import with_added, with_removed
from schemas.caption import Caption
from schemas.concept import Concept
from schemas.edit_settings import EditSettings, RoleWeights
from schemas.errors import ConceptError, UnknownComponent
from schemas.manifest import EditSite
from schemas.numerics import Numerics
from tests.rounding import ROUNDING

WORDS = {
    "objects": ["apple", "castle", "cat", "ship", "table"],
    "styles": [],
    "colors": ["natural", "red"],
}


@pytest.fixture(scope="module")
def model(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edit") / "model"
    shutil.copytree(tiny_sd, folder)
    (folder / "vocabulary.json").write_text(json.dumps(WORDS))
    return folder


def make_plan(model: Path, scorer: Path, out: Path, **changes: Any) -> EditPlan:
    fields: dict[str, Any] = {
        "concepts": (Concept(concept="apple", replacement="castle"),),
        "model": str(model),
        "located": EditSite(component="text_encoder.layers.0.self_attn"),
        "out": out,
        "numerics": Numerics(steps=2),
        "scorer": str(scorer),
        "images": 1,
    }
    return EditPlan(**(fields | changes))


@pytest.mark.parametrize(
    "components",
    [
        ("text_encoder.layers.0.self_attn",),
        ("text_encoder.layers.0.mlp", "text_encoder.layers.0.self_attn"),
    ],
)
def test_full_model_opens_and_differs_in_the_edited_weights_alone(
    model: Path, tiny_scorer: Path, tmp_path: Path, components: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    settings = EditSettings(components=components)
    report = edit_batch(
        make_plan(model, tiny_scorer, out, settings=settings, full_model=True), note=print
    )
    before, after = (
        load_file(folder / "text_encoder" / "model.safetensors")
        for folder in (model, out / "model")
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    ends = {"self_attn": "out_proj.weight", "mlp": "fc2.weight"}
    assert {name.rsplit("layers.0.")[1] for name in changed} == {
        f"{c.rpartition('.')[2]}.{ends[c.rpartition('.')[2]]}" for c in components
    }
    pipeline = StableDiffusionPipeline.from_pretrained(out / "model")
    for name in changed:
        assert torch.equal(pipeline.text_encoder.state_dict()[name], after[name])
    assert len(report.scores) == 1
    assert read_manifest(out).concepts[0].replacement == "castle"
    assert Image.open(out / "before_after.png").width > 100


def edited(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "edit.safetensors")


def test_what_is_added_and_taken_back_leaves_no_trace(
    model: Path, tiny_scorer: Path, tmp_path: Path
) -> None:
    edit_batch(make_plan(model, tiny_scorer, tmp_path / "a", images=0), note=print)
    more = tmp_path / "more.csv"
    more.write_text("concept,replacement,weight\nship,table,2\n")
    edit_batch(with_added(tmp_path / "a", more, out=tmp_path / "b", images=0), note=print)
    edit_batch(with_removed(tmp_path / "b", ["Ship"], out=tmp_path / "c", images=0), note=print)
    joint = (
        Concept(concept="apple", replacement="castle"),
        Concept(concept="ship", replacement="table", weight=2.0),
    )
    edit_batch(make_plan(model, tiny_scorer, tmp_path / "d", images=0, concepts=joint), note=print)
    other = make_plan(model, tiny_scorer, tmp_path / "o", images=0, concepts=joint[::-1])
    edit_batch(other, note=print)
    (name,) = edited(tmp_path / "a")
    a, b, c, d, o = (edited(tmp_path / letter)[name] for letter in "abcdo")
    assert torch.equal(b, d)
    assert torch.equal(b, o)
    assert torch.equal(a, c)
    assert not torch.equal(a, b)
    with pytest.raises(ConceptError, match="line 2: concept 'ship' is in"):
        with_added(tmp_path / "b", more, out=tmp_path / "e", images=0)
    with pytest.raises(ConceptError, match="has no concept 'cow'"):
        with_removed(tmp_path / "b", ["cow"], out=tmp_path / "e", images=0)
    with pytest.raises(ConceptError, match="would be left"):
        with_removed(tmp_path / "a", ["apple"], out=tmp_path / "e", images=0)


@pytest.mark.slow
def test_workers_of_ray_make_the_same_edit(
    model: Path, tiny_scorer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Many batches, so that both workers have some.
    monkeypatch.setattr("engine.editing.solve.BATCH", 5)
    settings = EditSettings(
        components=("text_encoder.layers.0.self_attn", "text_encoder.layers.1.mlp")
    )
    plan = make_plan(model, tiny_scorer, tmp_path, settings=settings)
    opened, book = open_model(str(model)), read_phrasebook(model)
    alone = solve(opened, plan, book=book)
    together = solve(opened, replace(plan, workers=shared(Cluster(actors=2))), book=book)
    for name, change in alone.changes.items():
        assert float((together.changes[name] - change).norm() / change.norm()) < ROUNDING


def test_published_objective_adds_the_bias_that_ours_does_not(
    model: Path, tiny_scorer: Path, tmp_path: Path
) -> None:
    """What the bias alone does: the change that is solved with it, less the one without."""
    component = ("text_encoder.layers.0.self_attn",)
    opened, book = open_model(str(model)), read_phrasebook(model)
    target = editable(opened, component[0])
    (layer,) = target.projections.values()
    bias_E = torch.randn(len(layer.bias), generator=torch.Generator().manual_seed(0))

    def change(bias: torch.Tensor, settings: EditSettings) -> torch.Tensor:
        with replaced(opened, {"text_encoder.encoder.layers.0.self_attn.out_proj.bias": bias}):
            plan = make_plan(model, tiny_scorer, tmp_path, settings=settings)
            (found,) = solve(opened, plan, book=book).changes.values()
        return found

    unrelated = [Caption(caption="table", subject="table", attribute="object")]
    keys = kept_keys(
        opened, target, unrelated, roles=RoleWeights(subject=0, eos=0), edited={}
    ).key_PD
    pushed, ours = (
        float(
            (
                keys @ (change(bias_E, settings) - change(0 * bias_E, settings)).T @ bias_E.double()
            ).mean()
            / bias_E.double().square().sum()
        )
        for settings in (
            EditSettings(components=component, objective="published", ridge=1e-6),
            EditSettings(components=component),
        )
    )
    assert 0.5 < pushed < 1.5
    assert abs(ours) < 1e-6


def test_general_captions_anchor_an_edit_and_are_kept_for_the_next(
    model: Path, tiny_scorer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    opened, book = open_model(str(model)), read_phrasebook(model)
    sizes = []
    for general in (0.1, 10.0, 10.0):
        settings = EditSettings(preserve=0.0, general=general)
        plan = make_plan(model, tiny_scorer, tmp_path, settings=settings)
        sizes.append(solve(opened, plan, book=book).changes)
    (file,) = (tmp_path / "cache").rglob("*.safetensors")
    assert file.name.startswith("text_encoder.layers.0.self_attn.")
    (name,) = sizes[0]
    assert sizes[1][name].norm() < sizes[0][name].norm()
    assert torch.equal(sizes[1][name], sizes[2][name])


def test_occupied_out_is_refused_and_left_alone(
    model: Path, tiny_scorer: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConceptError, match="not an empty folder"):
        edit_batch(make_plan(model, tiny_scorer, tmp_path), note=print)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_failure_leaves_nothing_behind(model: Path, tiny_scorer: Path, tmp_path: Path) -> None:
    long = Concept(concept="qz" * 40, replacement="castle")
    with pytest.raises(ConceptError, match="cannot be edited"):
        edit_batch(make_plan(model, tiny_scorer, tmp_path / "o", concepts=(long,)), note=print)
    unknown = EditSettings(components=("unet.mid_block.resnets.0",))
    with pytest.raises(UnknownComponent, match="text encoder"):
        edit_batch(make_plan(model, tiny_scorer, tmp_path / "o", settings=unknown), note=print)
    assert list(tmp_path.iterdir()) == []


def test_neither_run_nor_layer_is_refused(tmp_path: Path) -> None:
    apple = Concept(concept="apple", replacement="castle")
    with pytest.raises(ConceptError, match="--from-run"):
        run_edit((apple,), EditRequest(out=tmp_path / "o"), note=print)


def test_a_transformer_is_edited_by_default_where_it_takes_the_text_in(
    tiny_sd3: Path, tiny_scorer: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_sd3, tmp_path / "model")
    (model / "vocabulary.json").write_text(json.dumps(WORDS))
    apple = Concept(concept="apple", replacement="castle", prompts=("a photo of a {}",))
    request = EditRequest(
        out=tmp_path / "edit", model=str(model), scorer=str(tiny_scorer), images=0
    )
    manifest = run_edit((apple,), request, note=print)
    assert manifest.located.component == "transformer.context_embedder"
    assert {matrix.name for matrix in manifest.matrices} == {
        "transformer.context_embedder.weight",
        "transformer.time_text_embed.text_embedder.linear_1.weight",
    }
    assert min(matrix.relative_change for matrix in manifest.matrices) > 1e-4
    checked = check_edit(tmp_path / "edit", lora=None, note=print)
    assert [each.is_applied for each in checked] == [True, True]


def test_a_unet_has_no_default_component(tiny_sd: Path, tmp_path: Path) -> None:
    apple = Concept(concept="apple", replacement="castle")
    with pytest.raises(ConceptError, match=r"--from-run.*--layer"):
        run_edit((apple,), EditRequest(out=tmp_path / "o", model=str(tiny_sd)), note=print)
