"""A network's weight files: those of a folder that are read, and the contents of their headers."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from engine.files import is_file
from schemas.documents import JsonError, unique_fields
from schemas.errors import first_line

if TYPE_CHECKING:
    import torch

STEMS = ("diffusion_pytorch_model", "model")
"""How the weight files of diffusers' and of transformers' networks begin."""
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "BOOL": "bool",
}
"""Types of tensors that are read, as a safetensors header writes them; others are quantized."""
UNREAD = (".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".gguf", ".onnx")
"""Endings of weight files that are not read: most are pickles, which can run code."""
LARGEST_JSON = 64 * 2**20
"""Bytes; an index of shards has a line per tensor."""
LFS = b"version https://git-lfs"
"""The beginning of a file that Git LFS has not fetched."""


class PartError(Exception):
    """A part of a model that cannot be opened as it is; the message names part and file."""


def read_json(file: Path) -> dict[str, object]:
    """Return the JSON object of a file; PartError names a file that is not a JSON object."""
    name = f"{file.parent.name}/{file.name}"
    if not is_file(file):
        raise PartError(f"there is no {name}")
    try:
        if file.stat().st_size > LARGEST_JSON:
            raise PartError(f"{name} is too large for JSON")
        content = file.read_bytes()
        refuse_pointer(file, content)
        # The loaders read no other encoding.
        document = json.loads(content.decode(), object_pairs_hook=unique_fields)
    except OSError as error:
        raise PartError(f"{name} cannot be read: {error.strerror}") from error
    except JsonError as error:
        raise PartError(f"{name} {error}") from error
    except (ValueError, RecursionError) as error:
        raise PartError(f"{name} is not JSON: {first_line(error)[:100]}") from error
    if not isinstance(document, dict):
        raise PartError(f"{name} is not a JSON object")
    return document


def refuse_pointer(file: Path, content: bytes) -> None:
    """Raise PartError if a file's first bytes are those of a pointer of Git LFS."""
    if content.startswith(LFS):
        raise PartError(
            f"{file.parent.name}/{file.name} is a pointer of Git LFS: "
            "run `git lfs pull` in the folder"
        )


def chosen_variant(
    part: str, names: Sequence[str], stem: str, *, wanted: str | None = None
) -> str | None:
    """Return the variant to read of a part's files: the wanted one, else None for plain weights,
    else the only one.

    PartError: there are no weights, none in safetensors, or several variants, none of them wanted,
    and no plain ones.
    """
    variants = {variant for variant, _ in _choices(stem, names)}
    if wanted in variants:
        return wanted
    if None in variants:
        return None
    if len(variants) > 1:
        listed = ", ".join(sorted(str(variant) for variant in variants))
        raise PartError(f"{part} has the variants {listed}: give one by --variant")
    if variants:
        return variants.pop()
    unread = sorted(name for name in names if name.endswith(UNREAD))
    if unread:
        raise PartError(
            f"{part} has {unread[0]} and no {stem}.safetensors: dqf reads safetensors alone, as a "
            "pickle can run code; convert it where you trust it, with diffusers' "
            "from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
        )
    raise PartError(f"{part} has no weights: {stem}.safetensors is missing")


def _choices(stem: str, names: Sequence[str]) -> Iterator[tuple[str | None, str]]:
    """Yield variant and name of every file that holds, or is the index of, all weights."""
    whole = re.compile(rf"{stem}(?:\.(\w+))?\.safetensors")
    index = re.compile(rf"{stem}\.safetensors\.index(?:\.(\w+))?\.json")
    for name in names:
        if match := whole.fullmatch(name) or index.fullmatch(name):
            yield match[1], name


def no_variant(wanted: str) -> PartError:
    """Return the error of a variant that no part has."""
    return PartError(f"no part has weights of the variant {wanted}: leave --variant out")


def weight_patterns(part: str, names: Sequence[str], *, wanted: str | None = None) -> list[str]:
    """Return glob patterns of the weights to fetch of a part that has files of those names."""
    for stem in STEMS:
        if any(_choices(stem, names)):
            variant = chosen_variant(part, names, stem, wanted=wanted)
            if variant is None:
                forms = [f"{stem}.safetensors", f"{stem}-*-of-*.safetensors"]
            else:
                forms = [f"{stem}.{variant}.safetensors", f"{stem}-*-of-*.{variant}.safetensors"]
                forms += [f"{stem}.{variant}-*-of-*.safetensors"]
            return [f"{part}/{form}" for form in forms]
    return []


def stored_weights(folder: Path, stem: str, variant: str | None) -> "dict[str, torch.Tensor]":
    """Return an empty tensor of the shape and type of each that a variant's file or index names.

    PartError: a shard is missing, both a file and an index are there, or a file cannot be read.
    """
    names = sorted(path.name for path in folder.iterdir())
    of_variant = [name for other, name in _choices(stem, names) if other == variant]
    if len(of_variant) > 1:
        raise PartError(f"{folder.name} has {' and '.join(of_variant)}: leave one")
    file = folder / of_variant[0]
    if file.suffix != ".json":
        return read_headers([file])
    shards = _shards(file, names)
    stored = read_headers([folder / shard for shard in sorted(set(shards.values()))])
    return {name: stored[name] for name in shards if name in stored}


def _shards(index: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the shard of each tensor; PartError if one is not among the folder's names."""
    document = read_json(index)
    shards = document.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise PartError(f"{index.parent.name}/{index.name} has no weight_map")
    if not isinstance(document.get("metadata"), dict):  # the loaders add to it
        raise PartError(f'{index.parent.name}/{index.name} has no metadata: add "metadata": {{}}')
    for shard in shards.values():
        if shard not in names:
            raise PartError(f"{index.parent.name} lacks {shard}, which {index.name} names")
    return shards


def read_headers(files: list[Path]) -> "dict[str, torch.Tensor]":
    """Return an empty tensor of the shape and type of each in the files, without memory of its own.

    PartError: a file is cut short, damaged, a pointer of Git LFS or holds quantized weights, or two
    files hold the same tensor.
    """
    stored: dict[str, torch.Tensor] = {}
    for file in files:
        for name, tensor in _header(file):
            if name in stored:
                raise PartError(f"{file.parent.name} has {name} in two files, {file.name} is one")
            stored[name] = tensor
    return stored


def _header(file: Path) -> "Iterator[tuple[str, torch.Tensor]]":
    import torch  # it takes seconds, and names are checked without it

    label = f"{file.parent.name}/{file.name}"
    if not is_file(file):
        raise PartError(f"{label} is not a regular file")
    try:
        with file.open("rb") as opened:
            refuse_pointer(file, opened.read(len(LFS)))
        with safe_open(file, framework="pt") as opened:
            described = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            shapes = {name: (s.get_dtype(), s.get_shape()) for name, s in described.items()}
    except (OSError, SafetensorError) as error:
        raise PartError(f"{label} is damaged or cut short: {first_line(error)}") from error
    for name, (dtype, shape) in shapes.items():
        if dtype not in DTYPES:
            raise PartError(f"{label} is quantized: {name} is of type {dtype}")
        yield name, torch.empty((), dtype=getattr(torch, DTYPES[dtype])).expand(shape)
