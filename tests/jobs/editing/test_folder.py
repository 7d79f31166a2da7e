"""An edit's folder: what is in it, that it shows the edit, and what is refused as none."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from engine.editing.checkpoint import check_copyable
from engine.editing.delta import read_delta, replaced, weights_of
from engine.editing.delta_file import DELTA
from engine.editing.lora import KOHYA_FILE, PEFT_FILE
from engine.files import new_folder
from engine.model.model import Diffusion
from engine.model.opening import open_model
from engine.model.sampling import generate
from jobs.editing.folder import FULL_MODEL, metadata
from jobs.editing.manifest import MANIFEST, read_manifest
from jobs.editing.plan import EditPlan
from schemas.concept import Concept
from schemas.edit_settings import EditSettings, RoleWeights
from schemas.errors import ConceptError
from schemas.manifest import EditManifest, EditSite
from schemas.numerics import Numerics
from tests.made_up.edits import write_made_up_edit

OUT_PROJ = "encoder.layers.0.self_attn.out_proj.weight"
CAT = Concept(concept="cat", replacement="dog", prompts=("a {}",))
SETTINGS = EditSettings(
    ridge=0.1, roles=RoleWeights(eos=0.5), exactly=(Concept(concept="bus"),), objective="published"
)
NAMES = {
    "sd1": (f"text_encoder.{OUT_PROJ}",),
    "sdxl": (
        f"text_encoder.{OUT_PROJ}",
        f"text_encoder_2.text_model.{OUT_PROJ}",
        "unet.up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    ),
    "if": ("text_encoder.encoder.block.0.layer.0.SelfAttention.o.weight",),
}


@pytest.fixture(scope="module")
def folders(tiny_sd: Path, tiny_families: dict[str, Path]) -> dict[str, Path]:
    return {"sd1": tiny_sd, **tiny_families}


def write(folder: Path, model: Diffusion, names: tuple[str, ...], *, full_model: bool = False):  # noqa: ANN201
    """Write an edit of rank 1 and return its weights."""
    rng = torch.Generator().manual_seed(0)
    shapes = {name: weights_of(model)[name].shape for name in names}
    changes = {
        name: torch.outer(*(torch.randn(n, generator=rng, dtype=torch.float64) for n in shape)) / 3
        for name, shape in shapes.items()
    }
    write_made_up_edit(folder, model, changes, (CAT,), settings=SETTINGS, full_model=full_model)
    return {name: (weights_of(model)[name].double() + changes[name]).float() for name in names}


@pytest.mark.parametrize("name", ["sd1", "sdxl", "if"])
def test_the_whole_model_shows_what_the_delta_shows(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    model = open_model(str(folders[name]))
    write(tmp_path / "edit", model, NAMES[name], full_model=True)

    def images(drawn_by: Diffusion) -> torch.Tensor:
        numerics = Numerics(steps=2, guidance=3.0)
        return generate(drawn_by, ["a red apple", "an old castle"], seeds=[0, 1], numerics=numerics)

    before = images(model)
    with replaced(model, read_delta(tmp_path / "edit", model)):
        after = images(model)
    whole = images(open_model(str(tmp_path / "edit" / FULL_MODEL)))
    torch.testing.assert_close(whole, after, rtol=0, atol=1e-5)
    assert (after - before).abs().max() > 1e-3
    has_lora = name != "if"
    found = {path.name for path in (tmp_path / "edit").iterdir()}
    assert found == {DELTA, MANIFEST, FULL_MODEL, *((PEFT_FILE, KOHYA_FILE) if has_lora else ())}
    assert ("none" in read_manifest(tmp_path / "edit").lora) != has_lora


def test_the_manifest_says_what_was_done(folders: dict[str, Path], tmp_path: Path) -> None:
    model = open_model(str(folders["sdxl"]))
    weights = write(tmp_path / "edit", model, NAMES["sdxl"])
    manifest = read_manifest(tmp_path / "edit")
    assert isinstance(manifest, EditManifest)
    assert manifest.concepts == (CAT,)
    assert manifest.settings == SETTINGS
    assert manifest.model == str(folders["sdxl"].resolve())
    assert [m.name for m in manifest.matrices] == list(NAMES["sdxl"])
    for matrix in manifest.matrices:
        original = weights_of(model)[matrix.name]
        change = (weights[matrix.name] - original).norm() / original.norm()
        assert matrix.rank == 1
        assert matrix.shape == tuple(original.shape)
        assert matrix.relative_change == pytest.approx(float(change), rel=1e-4)
        assert matrix.hash_before != matrix.hash_after


def test_its_files_are_as_readable_as_any_other(folders: dict[str, Path], tmp_path: Path) -> None:
    with new_folder(tmp_path / "edit") as work:
        write(work / "inner", open_model(str(folders["sd1"])), NAMES["sd1"], full_model=True)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "edit").rglob("*"):
        like = tmp_path / ("folder" if path.is_dir() else "file")
        assert path.stat().st_mode == like.stat().st_mode, path


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("README.md", "/dev/zero"),
        ("notes", None),
        ("unet/extra", "/dev/null"),
        ("unet/more", ".."),
        ("gone", "nowhere"),
        ("again", "again"),
    ],
)
def test_a_model_that_cannot_be_copied_is_refused_before_it_is_opened(
    name: str, target: str | None, tmp_path: Path
) -> None:
    for path in ("unet/config.json", "vae/config.json"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text("{}")
    (tmp_path / "linked").symlink_to(tmp_path / "vae")
    check_copyable(tmp_path)
    if target is None:
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to(target)
    with pytest.raises(ConceptError, match=f"{name} is (not a regular file|a link to a folder)"):
        check_copyable(tmp_path)


def test_what_is_no_edit_is_one_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConceptError, match=f"is not an edit folder: it has no {MANIFEST}"):
        read_manifest(tmp_path)
    write(tmp_path / "edit", open_model(str(folders["sd1"])), NAMES["sd1"])
    path = tmp_path / "edit" / MANIFEST
    whole = path.read_text()

    def changed(**fields: object) -> str:
        return json.dumps({**json.loads(whole), **fields})

    for text, sentence in (
        (whole[:-9], "is not JSON"),
        ("[]", "has no version"),
        ("{}", "has no version"),
        (changed(version=5), "has version 5, this dqf reads 4: update dqf"),
        (changed(version=2), "has version 2, this dqf reads 4: make the edit again"),
        (changed(concepts=[{"concept": ""}]), "concepts.0.concept"),
        (changed(matrices=3), "is damaged: matrices"),
        (changed(note="added by hand"), "is damaged: note: Extra inputs are not permitted"),
        (changed(settings={"ridge": 0.1, "anchor": "kept"}), "settings.anchor: Unexpected"),
        (changed(settings={"ridge": 0.1, "roles": "all"}), "settings.roles"),
        (changed(located={"component": 3}), "located.component"),
        (changed(located=None), "is damaged: located"),
    ):
        path.write_text(text)
        with pytest.raises(ConceptError, match=sentence) as caught:
            read_manifest(tmp_path / "edit")
        assert "\n" not in str(caught.value)


def test_delta_and_lora_say_what_they_are_of(folders: dict[str, Path], tmp_path: Path) -> None:
    model = open_model(str(folders["sd1"]))
    write(tmp_path / "edit", model, NAMES["sd1"])
    manifest = read_manifest(tmp_path / "edit")
    for file in (DELTA, PEFT_FILE, KOHYA_FILE):
        with safe_open(tmp_path / "edit" / file, framework="pt") as opened:
            about = opened.metadata()
        assert about["dqf_base_model_hash"] == manifest.model_hash
        assert about["dqf_components"] == ", ".join(SETTINGS.components)
        assert about["modelspec.title"] == f"Edit of {folders['sd1'].name}, concepts: 1"
        assert str(folders["sd1"].parent) not in "".join(
            text for key, text in about.items() if key != "model"
        )


def test_the_metadata_of_equal_concepts_in_another_order_is_equal() -> None:
    def about(*names: str) -> dict[str, str]:
        concepts = tuple(Concept(concept=name, replacement="dog") for name in names)
        return metadata(
            EditPlan(
                concepts=concepts,
                model="emoji-sd",
                located=EditSite(component=SETTINGS.components[0]),
                out=Path("unused"),
                numerics=Numerics(steps=8, guidance=3.0),
                scorer="builtin:emoji-sd",
            )
        )

    assert about("cat", "owl") == about("owl", "cat")
    assert about("cat", "owl")["dqf_concepts_hash"] != about("cat", "fox")["dqf_concepts_hash"]
