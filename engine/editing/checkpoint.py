"""Writing an edited model: a copy of its diffusers folder with tensors replaced, all or nothing."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engine.files import is_file, is_folder
from engine.model.weight_files import read_json
from schemas.errors import ConceptError


def copy_with(source: Path, out: Path, *, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy the model folder `source` into `out` with tensors replaced, all else as it is.

    Tensors are named by their part (a subfolder) and their name in it, `unet.conv_in.weight`. Each
    is written in the dtype of the file that holds it. ConceptError: no safetensors file of the part
    holds a tensor of that name, or `source` cannot be copied (`check_copyable`).
    """
    check_copyable(source)
    # Without the files' permissions: those of a model may be read-only.
    shutil.copytree(source, out, dirs_exist_ok=True, copy_function=shutil.copyfile)
    _drop_absent_parts(out / "model_index.json")
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, parameter = name.partition(".")
        parts.setdefault(part, {})[parameter] = tensor
    for part, inside in parts.items():
        missing = set(inside)
        # Variants (fp16) and shards: every file that holds the tensor is rewritten.
        for file in sorted((out / part).glob("*.safetensors")):
            missing -= _replace(file, inside)
        if missing:
            lost = sorted(missing)[0]
            raise ConceptError(f"{source / part} holds no safetensors file with {lost}")
        for pickled in (out / part).glob("*.bin"):
            # A pickled copy would still hold the unedited weights.
            pickled.unlink()


def check_copyable(source: Path) -> None:
    """Raise ConceptError for a model folder that holds a pipe, a device, a broken link or a link
    to a folder around it: copying it would not end, or fill the disk."""
    for path in sorted(source.iterdir()):
        if is_folder(path):
            if source.resolve().is_relative_to(path.resolve()):
                raise ConceptError(f"{path} is a link to a folder around it: remove it")
            check_copyable(path)
        elif not is_file(path):
            raise ConceptError(f"{path} is not a regular file: move it out of the model's folder")


def _drop_absent_parts(index: Path) -> None:
    """Mark parts that the index lists but that were not fetched (the safety checker) as absent."""
    parts = read_json(index)
    for name, value in parts.items():
        if isinstance(value, list) and not is_folder(index.parent / name):
            parts[name] = [None, None]
    index.write_text(json.dumps(parts, indent=2) + "\n")


def _replace(file: Path, tensors: Mapping[str, torch.Tensor]) -> set[str]:
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
        stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    replaced: set[str] = set()
    for name, tensor in tensors.items():
        for stored_name in stored:
            if _same_name(stored_name, name):
                stored[stored_name] = tensor.to(stored[stored_name].dtype).contiguous()
                replaced.add(name)
    if replaced:
        file.unlink()
        save_file(stored, file, metadata=metadata)
    return replaced


def _same_name(stored: str, name: str) -> bool:
    # transformers 5.6 dropped the `text_model.` of CLIPTextModel's names; files keep either.
    return stored.removeprefix("text_model.") == name.removeprefix("text_model.")
