"""The delta: names, replacing and restoring weights, and the file that refuses other models."""

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from engine.editing.delta import read_delta, replaced, weight_hash, weights_of, write_delta
from engine.editing.delta_file import DELTA
from engine.model.model import Diffusion
from engine.model.opening import open_model
from schemas.errors import ConceptError

OUT_PROJ = "text_encoder.encoder.layers.0.self_attn.out_proj.weight"
TO_K = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def edited(model: Diffusion, *names: str) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {
        name: weight + torch.randn(weight.shape, generator=rng)
        for name, weight in weights_of(model).items()
        if name in names
    }


def write(folder: Path, model: Diffusion, weights: dict[str, torch.Tensor]) -> None:
    folder.mkdir()
    originals = {name: weights_of(model)[name] for name in weights}
    write_delta(folder / DELTA, weights, originals=originals, model=model.name)


def test_names_are_those_of_the_parts_and_their_state_dicts(tiny_families: dict[str, Path]) -> None:
    model = open_model(str(tiny_families["sdxl"]))
    names = weights_of(model)
    assert OUT_PROJ in names
    assert OUT_PROJ.replace("text_encoder.", "text_encoder_2.text_model.") in names
    assert names["unet.conv_in.weight"] is model.denoiser.conv_in.weight


def test_the_very_tensors_are_back_after_an_exception(tiny_sd: Path) -> None:
    model = open_model(str(tiny_sd))
    weights = edited(model, OUT_PROJ, TO_K)
    before = {name: (weights_of(model)[name].data_ptr(), weight_hash(weights_of(model)[name]))
              for name in weights}  # fmt: skip

    def fail_inside() -> None:
        with replaced(model, weights):
            for name, weight in weights.items():
                torch.testing.assert_close(weights_of(model)[name].data, weight, rtol=0, atol=0)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_inside()
    for name, (place, digest) in before.items():
        assert weights_of(model)[name].data_ptr() == place
        assert weight_hash(weights_of(model)[name]) == digest


def test_a_wrong_name_or_shape_replaces_nothing(tiny_sd: Path) -> None:
    model = open_model(str(tiny_sd))
    digest = weight_hash(weights_of(model)[OUT_PROJ])
    wrong: list[tuple[str, torch.Tensor]] = [
        ("text_encoder.x", torch.zeros(1)),
        (TO_K, torch.zeros(2, 3)),
    ]
    for name, tensor in wrong:
        weights = {**edited(model, OUT_PROJ), name: tensor}
        with pytest.raises(ValueError, match="has no weight"), replaced(model, weights):
            raise AssertionError
        assert weight_hash(weights_of(model)[OUT_PROJ]) == digest


def test_the_file_holds_what_changed_and_nothing_else(tiny_sd: Path, tmp_path: Path) -> None:
    model = open_model(str(tiny_sd))
    weights = {**edited(model, OUT_PROJ), TO_K: weights_of(model)[TO_K].detach().clone()}
    write(tmp_path / "edit", model, weights)
    read = read_delta(tmp_path / "edit", model)
    assert list(read) == [OUT_PROJ]
    torch.testing.assert_close(read[OUT_PROJ], weights[OUT_PROJ], rtol=0, atol=0)


def test_an_edit_that_changes_nothing_can_be_read(tiny_sd: Path, tmp_path: Path) -> None:
    model = open_model(str(tiny_sd))
    write(tmp_path / "edit", model, {})
    assert read_delta(tmp_path / "edit", model) == {}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_model_may_be_opened_in_another_precision(
    tiny_sd: Path, tmp_path: Path, dtype: str
) -> None:
    write(tmp_path / "edit", open_model(str(tiny_sd)), edited(open_model(str(tiny_sd)), TO_K))
    half = open_model(str(tiny_sd), dtype=dtype)
    with replaced(half, read_delta(tmp_path / "edit", half)):
        assert weights_of(half)[TO_K].dtype is getattr(torch, dtype)


def test_another_model_is_refused(
    tiny_sd: Path, tiny_families: dict[str, Path], tmp_path: Path
) -> None:
    model = open_model(str(tiny_sd))
    write(tmp_path / "edit", model, edited(model, OUT_PROJ))
    other = open_model(str(tiny_families["sdxl"]))
    with pytest.raises(ConceptError, match=f"another model: {OUT_PROJ}.*open the model {tiny_sd}"):
        read_delta(tmp_path / "edit", other)
    with (
        replaced(model, edited(model, OUT_PROJ)),
        pytest.raises(ConceptError, match="was made for another model"),
    ):
        read_delta(tmp_path / "edit", model)


def test_what_is_no_delta_is_one_sentence(tiny_sd: Path, tmp_path: Path) -> None:
    model = open_model(str(tiny_sd))
    with pytest.raises(ConceptError, match="is not an edit folder"):
        read_delta(tmp_path, model)
    write(tmp_path / "edit", model, edited(model, OUT_PROJ))
    path = tmp_path / "edit" / DELTA
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ConceptError, match="is damaged"):
        read_delta(tmp_path / "edit", model)
    path.write_bytes(whole)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    integers = {name: weight.int() for name, weight in load_file(path).items()}
    save_file(integers, path, metadata=metadata)
    with pytest.raises(ConceptError, match=f"{OUT_PROJ}.* as int32: weights are floating-point"):
        read_delta(tmp_path / "edit", model)
    path.write_bytes(whole)
    save_file(load_file(path), path, metadata={"dqf_edit": "2"})
    with pytest.raises(ConceptError, match="format version 2"):
        read_delta(tmp_path / "edit", model)


def test_a_link_is_followed_and_a_pipe_is_not_waited_for(tiny_sd: Path, tmp_path: Path) -> None:
    model = open_model(str(tiny_sd))
    weights = edited(model, OUT_PROJ)
    odd = "it's [1]*?% ü\n"
    write(tmp_path / odd, model, weights)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / DELTA).symlink_to(tmp_path / odd / DELTA)
    torch.testing.assert_close(read_delta(linked, model), weights, rtol=0, atol=0)
    for target in ("nothing", DELTA, "/dev/zero", "."):
        (linked / DELTA).unlink()
        (linked / DELTA).symlink_to(target)
        with pytest.raises(ConceptError, match=f"is not an edit folder: it has no file {DELTA}"):
            read_delta(linked, model)
    (linked / DELTA).unlink()
    os.mkfifo(linked / DELTA)
    with pytest.raises(ConceptError, match=f"is not an edit folder: it has no file {DELTA}"):
        read_delta(linked, model)
