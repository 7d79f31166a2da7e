"""Another's folder: what is incomplete, of other shapes, quantized or not finite is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from engine.model.components import list_components
from engine.model.opening import check_model, open_model, open_skeleton
from engine.model.registry import model_hash
from engine.model.sampling import generate
from schemas.errors import ModelUnavailable
from schemas.numerics import Numerics

UNET, VAE = "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"
TEXT = "text_encoder/model"
NUMERICS = Numerics(steps=2, guidance=2.0)


@pytest.fixture(scope="module")
def expected(tiny_sd: Path) -> torch.Tensor:
    """Return an image of the folder that is copied."""
    return drawn(tiny_sd)


@pytest.fixture
def copied(tiny_sd: Path, tmp_path: Path) -> Path:
    """Return a copy of a folder that opens."""
    return Path(shutil.copytree(tiny_sd, tmp_path / "model"))


def changed(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Rewrite a safetensors file."""
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def drop(*parts: str) -> Callable[[dict[str, torch.Tensor]], None]:
    """Return the change that leaves out every tensor with one of these in its name."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if any(part in name for part in parts)]:
            del tensors[name]

    return change


def rename(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], None]:
    """Return the change that renames tensors."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if old in name]:
            tensors[name.replace(old, new)] = tensors.pop(name)

    return change


def put(name: str, tensor: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], None]:
    """Return the change that puts a tensor under a name."""
    return lambda tensors: tensors.update({name: tensor})


def cast(part: str, dtype: torch.dtype) -> Callable[[dict[str, torch.Tensor]], None]:
    """Return the change that stores tensors in another type."""
    return lambda tensors: tensors.update(
        {name: tensor.to(dtype) for name, tensor in tensors.items() if part in name}
    )


def refused(folder: Path, match: str) -> None:
    """Assert that a folder is refused in one short sentence."""
    with pytest.raises(ModelUnavailable, match=match) as caught:
        check_model(str(folder))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("file", "change", "match"),
    [
        (TEXT, drop("layers.1.mlp.fc2"), "text_encoder is incomplete: 2 .*layers.1.mlp.fc2.bias"),
        (TEXT, drop("token_embedding"), "text_encoder is incomplete: 1 .*token_embedding.weight"),
        (UNET, drop("attn2.to_"), "unet is incomplete: .* tensors are missing, down_blocks.0"),
        (UNET, rename("to_q.weight", "to_q.base_layer.weight"), "unfused LoRA"),
        (VAE, drop("decoder.conv_out.bias"), "vae is incomplete: 1 .*decoder.conv_out.bias"),
        (VAE, put("decoder.conv_out.bias", torch.zeros(4)), "vae has a tensor .* is 4, not 3"),
        (TEXT, put("embeddings.token_embedding.weight", torch.zeros(5, 32)), "is 5 x 32, not"),
        (
            UNET,
            put("conv_in.weight", torch.zeros(3, dtype=torch.int8)),
            "quantized: conv_in.weight",
        ),
        (UNET, cast("mid_block.resnets.0.conv1.bias", torch.int32), "conv1.bias as int32: weights"),
        (TEXT, cast("layers.0.mlp.fc1.weight", torch.int64), "layers.0.mlp.fc1.weight as int64"),
        (VAE, cast("decoder.conv_in.weight", torch.bool), "vae has decoder.conv_in.weight as bool"),
    ],
)
def test_weights_that_are_missing_or_of_another_shape_are_refused(
    copied: Path, file: str, change: Callable, match: str
) -> None:
    changed(copied / f"{file}.safetensors", change)
    refused(copied, match)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (TEXT, put("embeddings.position_ids", torch.arange(24)[None])),
        (TEXT, rename("encoder.layers", "text_model.encoder.layers")),
        (UNET, put("a.tensor.of.another.network", torch.zeros(3))),
    ],
)
def test_positions_prefixes_and_other_tensors_are_no_reason(
    copied: Path, expected: torch.Tensor, file: str, change: Callable
) -> None:
    changed(copied / f"{file}.safetensors", change)
    check_model(str(copied))
    assert drawn(copied).equal(expected)


def drawn(folder: Path) -> torch.Tensor:
    """Return an image of a folder's model."""
    model = open_model(str(folder), device="cpu")
    return generate(model, ["a red apple"], seeds=[0], numerics=NUMERICS)


def test_a_vae_of_old_names_is_opened(copied: Path, expected: torch.Tensor) -> None:
    def old(tensors: dict[str, torch.Tensor]) -> None:
        for new, name in (("to_q", "query"), ("to_k", "key"), ("to_v", "value")):
            rename(f"attentions.0.{new}", f"attentions.0.{name}")(tensors)
        rename("attentions.0.to_out.0", "attentions.0.proj_attn")(tensors)

    changed(copied / f"{VAE}.safetensors", old)
    assert any("proj_attn" in name for name in load_file(copied / f"{VAE}.safetensors"))
    check_model(str(copied))
    assert drawn(copied).equal(expected)


def test_weights_tied_to_others_are_no_reason(
    tiny_families: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_families["if"], tmp_path / "if"))
    assert not {"shared.weight", "encoder.embed_tokens.weight"} <= set(
        load_file(folder / f"{TEXT}.safetensors")
    )
    check_model(str(folder))
    changed(folder / f"{TEXT}.safetensors", drop("shared.weight", "embed_tokens.weight"))
    refused(folder, r"text_encoder is incomplete: 1 .* shared\.weight the first")


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        (UNET, "mid_block.resnets.0.conv1.weight", float("nan")),
        (TEXT, "encoder.layers.0.mlp.fc1.bias", float("inf")),
        (VAE, "decoder.conv_in.bias", float("-inf")),
    ],
)
def test_weights_that_are_not_finite_are_refused_as_they_are_read(
    copied: Path, file: str, name: str, value: float
) -> None:
    changed(copied / f"{file}.safetensors", lambda tensors: tensors[name].view(-1)[:3].fill_(value))
    check_model(str(copied))
    with pytest.raises(ModelUnavailable, match=f"has 3 values in {name} that are not finite"):
        open_model(str(copied), device="cpu")


def test_weights_beyond_half_precision_are_refused_in_it_alone(copied: Path) -> None:
    changed(copied / f"{UNET}.safetensors", lambda tensors: tensors["conv_in.bias"].fill_(1e5))
    open_model(str(copied), device="cpu")
    open_model(str(copied), dtype="bfloat16", device="cpu")
    with pytest.raises(ModelUnavailable, match="not finite in float16: give --dtype bfloat16"):
        open_model(str(copied), dtype="float16", device="cpu")


def test_a_pointer_of_git_lfs_is_named(copied: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3438354725\n"
    for name in (f"{UNET}.safetensors", "tokenizer/tokenizer.json", "vae/config.json"):
        before = (copied / name).read_bytes()
        (copied / name).write_bytes(pointer)
        refused(copied, f"{name} is a pointer of Git LFS: run `git lfs pull`")
        (copied / name).write_bytes(before)
    check_model(str(copied))


@pytest.mark.parametrize("left", [0, 7, 300, -1])
def test_a_file_that_was_cut_is_named(copied: Path, left: int) -> None:
    file = copied / f"{UNET}.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    refused(copied, "unet/diffusion_pytorch_model.safetensors is damaged or cut short")


def test_a_sole_variant_is_opened_and_two_are_not(copied: Path, expected: torch.Tensor) -> None:
    for stem in (UNET, VAE, TEXT):
        file = copied / f"{stem}.safetensors"
        halves = {name: tensor.half() for name, tensor in load_file(file).items()}
        save_file(halves, copied / f"{stem}.fp16.safetensors", metadata={"format": "pt"})
        file.unlink()
    check_model(str(copied))
    assert torch.allclose(drawn(copied), expected, atol=0.05)
    shutil.copy(copied / f"{VAE}.fp16.safetensors", copied / f"{VAE}.ema.safetensors")
    refused(copied, "vae has the variants ema, fp16: give one by --variant")
    check_model(f"{copied}#ema")


def test_a_variant_is_read_where_a_part_has_it(copied: Path, expected: torch.Tensor) -> None:
    zeros = {
        name: torch.zeros_like(t) for name, t in load_file(copied / f"{UNET}.safetensors").items()
    }
    save_file(zeros, copied / f"{UNET}.none.safetensors", metadata={"format": "pt"})
    check_model(f"{copied}#none")
    variant = open_model(f"{copied}#none", device="cpu")
    assert not any(p.any() for p in variant.denoiser.parameters())
    assert any(p.any() for p in variant.encoders[0].module.parameters()), "it has no such variant"
    assert drawn(copied).equal(expected)
    assert len({model_hash(f"{copied}{mark}") for mark in ("", "#none", "#other")}) == 3
    for wrong in ("fp16", "NONE"):
        with pytest.raises(ModelUnavailable, match=f"no part has weights of the variant {wrong}"):
            check_model(f"{copied}#{wrong}")
    for wrong in ("", "a-b", "../x"):
        with pytest.raises(ModelUnavailable, match="is not a variant of weights"):
            check_model(f"{copied}#{wrong}")
    whole = copied.rename(copied.with_name("model#none"))
    assert drawn(whole).equal(expected), "a folder's own name may hold the mark"


def test_pickles_are_refused_with_what_helps(copied: Path) -> None:
    (copied / f"{TEXT}.safetensors").rename(copied / "text_encoder" / "pytorch_model.bin")
    refused(copied, "text_encoder has pytorch_model.bin and no model.safetensors.*save_pretrained")


def sharded(folder: Path, stem: str) -> tuple[Path, list[str], dict[str, str]]:
    """Split a part's weights in two; return the index, the files and the file of each tensor."""
    tensors = load_file(folder / f"{stem}.safetensors")
    (folder / f"{stem}.safetensors").unlink()
    files = [f"{Path(stem).name}-0000{n}-of-00002.safetensors" for n in (1, 2)]
    shards = {name: files[number % 2] for number, name in enumerate(sorted(tensors))}
    for file in files:
        part = {name: tensors[name] for name, own in shards.items() if own == file}
        save_file(part, (folder / stem).with_name(file), metadata={"format": "pt"})
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    return index, files, shards


def test_shards_are_read_and_all_of_them_are_there(copied: Path, expected: torch.Tensor) -> None:
    index, files, _ = sharded(copied, UNET)
    check_model(str(copied))
    assert drawn(copied).equal(expected)
    (copied / "unet" / files[1]).unlink()
    refused(copied, f"unet lacks {files[1]}, which")
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "../../secret"}}))
    refused(copied, "unet lacks ../../secret")


@pytest.mark.parametrize("stem", [UNET, TEXT])
def test_an_index_that_does_not_fit_its_shards_is_refused(copied: Path, stem: str) -> None:
    index, files, shards = sharded(copied, stem)
    first, *others = shards
    index.write_text(json.dumps({"weight_map": shards}))
    refused(copied, r"index\.json has no metadata")
    unnamed = {name: shards[name] for name in others}
    index.write_text(json.dumps({"metadata": {}, "weight_map": unnamed}))
    refused(copied, f"is incomplete: 1 tensors are missing, .*{first.removeprefix('text_model.')}")
    index.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    value = load_file(copied / Path(stem).parent / shards[first])[first]
    twice = next(file for file in files if file != shards[first])
    changed(copied / Path(stem).parent / twice, put(first, value + 1))
    refused(copied, f"has {first} in two files")


@pytest.mark.parametrize(
    ("part", "value", "match"),
    [
        (
            "_class_name",
            ["StableDiffusionPipeline"],
            r"is a \['StableDiffusionPipeline'\]: dqf opens",
        ),
        ("unet", ["diffusers", "UNet3DConditionModel"], "its unet is .*UNet3D.*: dqf opens UNet2D"),
        ("unet", ["my_unet", "MyUNet"], "not a class of diffusers or transformers"),
        (
            "vae",
            ["diffusers", "AutoencoderTiny"],
            "its vae is .*Tiny.*: dqf opens AutoencoderKL",
        ),
        ("text_encoder", [None, None], "it has no text_encoder"),
        ("scheduler", ["diffusers", "AutoencoderKL"], "which is not a scheduler"),
        ("tokenizer", {"a": 1}, "its tokenizer is {'a': 1}"),
    ],
)
def test_an_index_of_other_parts_is_refused(
    copied: Path, part: str, value: object, match: str
) -> None:
    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps(index | {part: value}))
    refused(copied, match)


def test_an_encoder_that_the_index_does_not_name_is_not_taken_for_none(
    tiny_sd3: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_sd3, tmp_path / "model"))
    index = json.loads((folder / "model_index.json").read_text())
    del index["text_encoder_3"]
    (folder / "model_index.json").write_text(json.dumps(index))
    refused(folder, "it has no text_encoder_3")


def test_parts_that_are_never_used_need_not_be_there(copied: Path, expected: torch.Tensor) -> None:
    index = json.loads((copied / "model_index.json").read_text())
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (copied / "model_index.json").write_text(json.dumps(index))
    check_model(str(copied))
    assert drawn(copied).equal(expected)


def test_a_tokenizer_without_its_vocabulary_is_refused(copied: Path) -> None:
    (copied / "tokenizer" / "tokenizer.json").unlink()
    refused(copied, "tokenizer lacks vocab.json and merges.txt")


def test_an_adapter_does_not_put_another_model_in_place(copied: Path) -> None:
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(copied / "text_encoder")}
    (copied / "text_encoder" / "adapter_config.json").write_text(json.dumps(adapter))
    refused(copied, "text_encoder has adapter_config.json: merge the adapter")


def test_quantized_configs_are_refused_and_ways_to_compute_attention_ignored(
    copied: Path, expected: torch.Tensor
) -> None:
    def set_config(part: str, **settings: object) -> None:
        file = copied / part / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))

    set_config("text_encoder", _attn_implementation="flash_attention_2")
    check_model(str(copied))
    assert drawn(copied).equal(expected)
    set_config("unet", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    refused(copied, "unet is quantized")
    set_config("unet", quantization_config=None)
    set_config("text_encoder", quantization_config={})
    refused(copied, "text_encoder is quantized")


@pytest.mark.parametrize(
    "content", ["{", "[1]", '"a"', "[" * 100_000, "\x00", '{"a": 1' + "0" * 9000, "\ufeff{}"]
)
def test_a_config_that_is_no_object_is_named(copied: Path, content: str) -> None:
    (copied / "unet" / "config.json").write_text(content)
    refused(copied, r"unet/config\.json is not")


@pytest.mark.parametrize(
    "name", ["tokenizer/vocab.json", f"{VAE}.safetensors", "scheduler/scheduler_config.json"]
)
def test_what_is_no_regular_file_is_not_waited_for(copied: Path, name: str) -> None:
    (copied / name).unlink(missing_ok=True)
    os.mkfifo(copied / name)
    refused(copied, f"{name} is not a regular file|there is no {name}")


def test_a_unet_without_a_middle_block_is_traced(tiny_sd: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_sd, tmp_path / "model"))
    config: Any = UNet2DConditionModel.load_config(folder / "unet")
    unet: Any = UNet2DConditionModel.from_config(config, mid_block_type=None)
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet")
    check_model(str(folder))
    names = [component.name for component in list_components(open_skeleton(str(folder)))]
    assert names
    assert not [name for name in names if "mid_block" in name]
    assert bool(drawn(folder).isfinite().all())


def test_a_worker_refuses_what_the_client_cannot_see(copied: Path) -> None:
    changed(copied / f"{TEXT}.safetensors", drop("layers.0.mlp"))
    with pytest.raises(ModelUnavailable, match="text_encoder is incomplete: 4 tensors"):
        open_model(str(copied), device="cpu")
