"""An edit end to end: the folder that is written opens by itself and holds the edit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from jobs.edit import EditJob, edit_batch
from jobs.edit_report import Located
from jobs.edit_request import run_edit
from schemas.concept import Concept
from schemas.errors import ConceptError, UnknownComponent
from schemas.plan import Numerics

WORDS = {
    "objects": ["apple", "castle", "bird", "ship", "table"],
    "styles": [],
    "colours": ["natural", "red"],
}


@pytest.fixture(scope="module")
def model(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edit") / "model"
    shutil.copytree(tiny_sd, folder)
    (folder / "vocabulary.json").write_text(json.dumps(WORDS))
    return folder


def make_job(model: Path, scorer: Path, out: Path, **changes: object) -> EditJob:
    fields: dict = {
        "concepts": (Concept(concept="apple", target="castle"),),
        "model": str(model),
        "located": Located(component="text_encoder.layers.0.self_attn"),
        "out": out,
        "numerics": Numerics(steps=2),
        "scorer": str(scorer),
        "images": 1,
    }
    return EditJob(**(fields | changes))


@pytest.mark.parametrize("part", ["self_attn", "mlp"])
def test_written_folder_opens_and_differs_in_one_weight(
    model: Path, tiny_scorer: Path, tmp_path: Path, part: str
) -> None:
    out = tmp_path / "out"
    located = Located(component=f"text_encoder.layers.0.{part}")
    report = edit_batch(make_job(model, tiny_scorer, out, located=located), note=print)
    before, after = (
        load_file(folder / "text_encoder" / "model.safetensors") for folder in (model, out)
    )
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) == 1
    assert changed[0].endswith({"self_attn": "out_proj.weight", "mlp": "fc2.weight"}[part])
    pipeline = StableDiffusionPipeline.from_pretrained(out)
    weight_ED = pipeline.text_encoder.state_dict()[changed[0]]
    assert torch.equal(weight_ED, after[changed[0]])
    assert len(report.scores) == 1
    assert json.loads((out / "edit.json").read_text())["concepts"][0]["becomes"] == "castle"
    assert Image.open(out / "before_after.png").width > 100


def test_occupied_out_is_refused_and_left_alone(
    model: Path, tiny_scorer: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConceptError, match="not an empty folder"):
        edit_batch(make_job(model, tiny_scorer, tmp_path), note=print)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_failure_leaves_nothing_behind(model: Path, tiny_scorer: Path, tmp_path: Path) -> None:
    long = Concept(concept="qz" * 40, target="castle")
    with pytest.raises(ConceptError, match="cannot be edited"):
        edit_batch(make_job(model, tiny_scorer, tmp_path / "o", concepts=(long,)), note=print)
    unknown = Located(component="unet.mid_block.resnets.0")
    with pytest.raises(UnknownComponent, match="text encoder"):
        edit_batch(make_job(model, tiny_scorer, tmp_path / "o", located=unknown), note=print)
    assert list(tmp_path.iterdir()) == []


def test_neither_run_nor_layer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("concept,target\napple,castle\n")
    with pytest.raises(ConceptError, match="--from-run"):
        run_edit(
            path, out=tmp_path / "o", run=None, layer=None, model=None, scorer=None, images=0,
            ridge=None, preserve=None, note=print,
        )  # fmt: skip
