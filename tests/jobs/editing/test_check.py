"""`dqf edit check`: a LoRA that diffusers applies as the edit, and each way it does not."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.editing.delta import weights_of
from engine.editing.editable import editable, editable_components
from engine.editing.lora import KOHYA_FILE, PEFT_FILE
from engine.editing.lora_check import CheckedMatrix, State
from engine.model.opening import open_model, open_skeleton
from jobs.editing.check import check_edit
from jobs.editing.manifest import read_manifest
from schemas.component import Part
from schemas.concept import Concept
from schemas.errors import ConceptError
from tests.made_up.edits import write_made_up_edit
from tests.models.language_models import build_klein, build_qwen_image, build_z_image
from tests.models.transformers import build_pixart

FC2 = "text_encoder.encoder.layers.0.mlp.fc2.weight"
TO_K = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
SD3 = (
    "transformer.context_embedder.weight",
    "transformer.time_text_embed.text_embedder.linear_1.weight",
    "transformer.transformer_blocks.1.attn.add_k_proj.weight",
    "text_encoder.text_model.encoder.layers.0.mlp.fc2.weight",
)


def write(folder: Path, model: Path, names: tuple[str, ...]) -> Path:
    opened = open_model(str(model), device="cpu")
    rng = torch.Generator().manual_seed(0)
    changes = {
        name: torch.outer(
            *(
                torch.randn(n, generator=rng, dtype=torch.float64)
                for n in weights_of(opened)[name].shape
            )
        )
        / 10
        for name in names
    }
    write_made_up_edit(folder, opened, changes, (Concept(concept="cat"),))
    return folder


@pytest.fixture(scope="module")
def edit(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("edits") / "a", tiny_sd, (FC2, TO_K))


def checked(edit: Path, lora: Path | None = None) -> dict[str, State]:
    return {m.matrix: m.state for m in check_edit(edit, lora=lora, note=lambda _: None)}


@pytest.mark.parametrize("file", [None, KOHYA_FILE])
def test_an_edits_own_files_are_applied(edit: Path, file: str | None) -> None:
    found = checked(edit, edit / file if file else None)
    assert found == {FC2: State.APPLIED, TO_K: State.APPLIED}


def test_every_part_of_a_transformer_that_diffusers_loads(tiny_sd3: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "sd3", tiny_sd3, SD3)
    assert checked(folder) == dict.fromkeys(SD3, State.APPLIED)
    assert "ComfyUI" in read_manifest(folder).lora


@pytest.mark.parametrize("build", [build_z_image, build_qwen_image, build_klein])
def test_every_editable_matrix_of_a_language_models_family(
    build: Callable[[], Any], tmp_path: Path
) -> None:
    build().save_pretrained(tmp_path / "model")
    skeleton = open_skeleton(str(tmp_path / "model"))
    names = tuple(
        matrix
        for component in editable_components(skeleton, with_shared=True)
        if component.part is Part.DENOISER
        for matrix in editable(skeleton, component.name).projections
    )
    folder = write(tmp_path / "edit", tmp_path / "model", names)
    assert checked(folder) == dict.fromkeys(names, State.APPLIED)
    assert "ComfyUI" in read_manifest(folder).lora


def test_what_is_missing_scaled_or_besides_the_edit_is_named(edit: Path, tmp_path: Path) -> None:
    own = load_file(edit / PEFT_FILE)
    without = {name: t for name, t in own.items() if not name.startswith("unet.")}
    save_file(without, tmp_path / "missing.safetensors")
    assert checked(edit, tmp_path / "missing.safetensors") == {
        FC2: State.APPLIED,
        TO_K: State.NOT_APPLIED,
    }
    halved = {name: t / 2 if "lora_B" in name else t for name, t in own.items()}
    save_file(halved, tmp_path / "halved.safetensors")
    assert checked(edit, tmp_path / "halved.safetensors")[TO_K] is State.DIFFERS
    besides = {name.replace("to_k", "to_v"): t.clone() for name, t in own.items()} | own
    save_file(besides, tmp_path / "besides.safetensors")
    assert checked(edit, tmp_path / "besides.safetensors") == {
        FC2: State.APPLIED,
        TO_K: State.APPLIED,
        TO_K.replace("to_k", "to_v"): State.NOT_IN_THE_EDIT,
    }


def test_the_distance_is_1_where_nothing_was_applied(
    edit: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = load_file(edit / PEFT_FILE)
    kept = {name: t for name, t in own.items() if not name.startswith("unet.")}
    save_file(kept, tmp_path / "part.safetensors")
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    matrices = check_edit(edit, lora=tmp_path / "part.safetensors", note=lambda _: None)
    found: dict[str, CheckedMatrix] = {m.matrix: m for m in matrices}
    assert found[TO_K].distance == pytest.approx(1.0)
    assert found[FC2].distance == pytest.approx(0.0, abs=1e-3)
    assert "No LoRA keys" not in caplog.text  # diffusers' own words for what the table says


def test_a_model_without_a_loader_has_no_lora_and_says_so(tmp_path: Path) -> None:
    build_pixart(sigma=True).save_pretrained(tmp_path / "pixart")
    name = "transformer.caption_projection.linear_1.weight"
    folder = write(tmp_path / "edit", tmp_path / "pixart", (name,))
    assert not (folder / PEFT_FILE).exists()
    why = "none: diffusers has no LoRA loader for transformer of PixArtSigmaPipeline"
    assert read_manifest(folder).lora.startswith(why)
    with pytest.raises(ConceptError, match=f"is not a file; its LoRA is {why}"):
        checked(folder)
    save_file({"a.lora_A.weight": torch.zeros(1, 1)}, tmp_path / "x.safetensors")
    with pytest.raises(ConceptError, match="diffusers has no LoRA loader for PixArtSigmaPipeline"):
        checked(folder, tmp_path / "x.safetensors")


def test_what_cannot_be_loaded_is_one_sentence(edit: Path, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("not tensors")
    with pytest.raises(ConceptError, match="is not a safetensors file"):
        checked(edit, tmp_path / "text.safetensors")
    save_file({"weights": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ConceptError, match="diffusers cannot load"):
        checked(edit, tmp_path / "other.safetensors")


def test_a_lora_of_another_model_is_one_sentence(tiny_sd3: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "sd3", tiny_sd3, SD3[:1])
    own = load_file(folder / PEFT_FILE)
    narrow = {name: t[:, 1:].contiguous() if "lora_A" in name else t for name, t in own.items()}
    save_file(narrow, tmp_path / "narrow.safetensors")
    with pytest.raises(ConceptError, match=r"diffusers cannot load .* size mismatch for"):
        checked(folder, tmp_path / "narrow.safetensors")


def test_without_peft_it_says_what_to_install(edit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConceptError, match=r"pip install 'dqf\[lora\]'"):
        checked(edit)
