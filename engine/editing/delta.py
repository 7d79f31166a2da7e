"""The weights that an edit changes: their public names, their replacement in a block, their file.

A weight's public name is `PART.PARAMETER`: the pipeline's part (`text_encoder`, `text_encoder_2`,
`unet`) and the name in that module's state dict as transformers and diffusers name it now, so
`text_encoder.encoder.layers.0.self_attn.out_proj.weight` for a `CLIPTextModel`, whose
`text_model.` transformers 5.6 dropped, and `text_encoder_2.text_model.encoder...` for a
`CLIPTextModelWithProjection`.

`edit.safetensors` holds the edited matrices alone, in float32, under those names. Its metadata says
which matrices it was solved from, by their hashes, so that it is never laid over another model.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from engine.editing.delta_file import delta_path
from engine.model.model import Diffusion, Skeleton
from schemas.documents import parsed, read_json
from schemas.errors import ConceptError

VERSION = "1"
"""Version of the delta's format."""
NO_METADATA: Mapping[str, str] = MappingProxyType({})
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
"""Types that a model may be opened in; the originals are hashed as each of them holds them."""


Originals = dict[str, dict[Literal["float32", "bfloat16", "float16"], str]]
"""The hash of each original matrix, by the precision that holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """The content of an edit's `edit.safetensors`."""

    weights: dict[str, torch.Tensor]
    """The edited matrices by public name, float32 on the CPU."""
    model: str
    """The model that they belong to, as a user opens it."""
    originals: Originals
    concepts: str | None
    """The hash of the concepts; None in a file that has none."""


def weights_of(model: Diffusion | Skeleton) -> dict[str, nn.Parameter]:
    """Return the weights of the text encoders and the denoiser by public name."""
    parts = [*((e.name, e.module) for e in model.encoders), (model.family.denoiser, model.denoiser)]
    return {
        f"{part}.{name}": parameter
        for part, module in parts
        for name, parameter in module.named_parameters()
    }


def weight_hash(tensor: torch.Tensor) -> str:
    """Return blake2b (16 bytes, in hex) of a tensor's float32 bytes in row-major order."""
    content = tensor.detach().float().cpu().contiguous().numpy()
    return hashlib.blake2b(content.data, digest_size=16).hexdigest()


@contextmanager
def replaced(model: Diffusion, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Run the block with weights replaced, by public name; the original tensors return afterward.

    Each is cast to the dtype and device of the weight that it replaces. ValueError: the model has
    no weight of that name and shape; nothing is replaced then.
    """
    parameters = weights_of(model)
    for name, weight in weights.items():
        if name not in parameters or parameters[name].shape != weight.shape:
            raise ValueError(f"{model.name} has no weight {name} of shape {tuple(weight.shape)}")
    with ExitStack() as stack:
        for name, weight in weights.items():
            stack.enter_context(_replaced(parameters[name], weight))
        yield


@contextmanager
def _replaced(parameter: nn.Parameter, weight: torch.Tensor) -> Iterator[None]:
    original = parameter.data
    parameter.data = weight.detach().to(original)
    try:
        yield
    finally:
        parameter.data = original


def write_delta(
    path: Path,
    weights: Mapping[str, torch.Tensor],
    *,
    originals: Mapping[str, torch.Tensor],
    model: str,
    about: Mapping[str, str] = NO_METADATA,
) -> None:
    """Write the weights that differ from their originals, both by public name, as float32.

    `model` is the name under which a user opens the model they belong to; `about` is added to the
    file's metadata.
    """
    changed = {
        name: weight.detach().float().cpu().contiguous()
        for name, weight in weights.items()
        if not torch.equal(weight.detach().cpu(), originals[name].detach().cpu())
    }
    metadata = {
        **about,
        "dqf_edit": VERSION,
        "model": model,
        "originals": json.dumps({name: _hashes(originals[name]) for name in changed}),
    }
    save_file(changed, path, metadata=metadata)


def open_delta(folder: Path) -> Delta:
    """Return the delta of an edit's folder, for any model; ConceptError: it has none."""
    path = delta_path(folder)
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConceptError(f"{path} is damaged ({error}): make the edit again") from error
    if metadata.get("dqf_edit") != VERSION:
        written = metadata.get("dqf_edit", "none")
        raise ConceptError(f"{path} has format version {written}, this dqf reads {VERSION}: update")
    document = read_json(metadata.get("originals", ""), f"{path}: its metadata", error=ConceptError)
    originals = parsed(Originals, document, f"{path} is damaged", error=ConceptError)
    unknown = weights.keys() - originals.keys()
    if unknown or "model" not in metadata:
        raise ConceptError(f"{path} is damaged, it does not say what it was made from")
    for name, weight in weights.items():
        if not weight.is_floating_point():
            dtype = str(weight.dtype).removeprefix("torch.")
            raise ConceptError(
                f"{path} is damaged, it has {name} as {dtype}: weights are floating-point numbers"
            )
        if not weight.isfinite().all():
            raise ConceptError(f"{path} is damaged, it holds numbers that are not finite: {name}")
    return Delta(
        weights=weights,
        model=metadata["model"],
        originals=originals,
        concepts=metadata.get("dqf_concepts_hash"),
    )


def read_delta(folder: Path, model: Diffusion) -> dict[str, torch.Tensor]:
    """Return the edited weights of an edit's folder, float32 on the CPU, by public name.

    ConceptError: there is no delta, it cannot be read, or it was solved from other weights than
    those of the opened model.
    """
    delta = open_delta(folder)
    parameters = weights_of(model)
    for name in delta.weights:
        parameter = parameters.get(name)
        if parameter is None or not _is_original(parameter, delta, name):
            what = "is not in" if parameter is None else "differs in"
            raise ConceptError(
                f"edit {folder} was made for another model: {name} {what} {model.name}; "
                f"open the model {delta.model}"
            )
    return delta.weights


def _is_original(parameter: torch.Tensor, delta: Delta, name: str) -> bool:
    recorded = {str(held): digest for held, digest in delta.originals[name].items()}.get(
        _precision(parameter)
    )
    return parameter.shape == delta.weights[name].shape and recorded == weight_hash(parameter)


def norm(matrix: torch.Tensor) -> float:
    """Return the Frobenius norm of a matrix."""
    return float(matrix.norm())


def _hashes(original: torch.Tensor) -> dict[str, str]:
    return {_precision(held): weight_hash(held) for held in map(original.detach().to, PRECISIONS)}


def _precision(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
