"""Checking matrix by matrix that a LoRA, loaded by diffusers, gives the edited weights' outputs.

Image tools skip what they cannot place in a model, mostly in silence. So each matrix of the edit is
given random inputs after loading, and what it returns is compared with W1 x + b.

Shapes: X random inputs, D a matrix's inputs, E its outputs (suffixes `_XD`, `_XE`, `_ED`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from engine.model.model import Diffusion
from engine.model.parts import quiet_loaders
from schemas.errors import ConceptError, first_line

INPUTS = 32
"""Random inputs of each matrix."""
ROUNDING = 1e-5
"""Largest difference, relative to a matrix's output, that is float32 rounding of sums."""
NEAR = 1e-3
"""Largest difference, relative to that between the edit and the original, of an applied one."""


class State(StrEnum):
    """The state of a matrix after the LoRA was loaded."""

    APPLIED = "applied"
    NOT_APPLIED = "not applied"
    DIFFERS = "differs"
    NOT_IN_THE_EDIT = "not in the edit"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedMatrix:
    """A matrix of the edit, or one that the LoRA changes besides."""

    matrix: str
    """Public name."""
    state: State
    distance: float | None
    """|loaded - edited| / |edited - original| over outputs: 0 applied, 1 not applied; None where
    the edit does not change it."""

    @property
    def is_applied(self) -> bool:
        """Whether the LoRA gives this matrix the edit's outputs."""
        return self.state is State.APPLIED


def check_lora(
    model: Diffusion, pipeline: Any, file: Path, weights: Mapping[str, torch.Tensor]
) -> list[CheckedMatrix]:
    """Load a LoRA file into a pipeline, whose networks are the model's, and compare each matrix.

    `weights` are the edited ones by public name. ConceptError: the file is not a safetensors file,
    or diffusers cannot load it.
    """
    parts = {e.name: e.module for e in model.encoders} | {model.family.denoiser: model.denoiser}
    originals = {name: _layer(parts, name).weight.detach().clone() for name in weights}
    load_lora(pipeline, file)
    compared = [
        _compared(name, _layer(parts, name), originals[name], weights[name]) for name in weights
    ]
    besides = [name for name in _changed(parts) if name not in weights]
    return [
        *compared,
        *(
            CheckedMatrix(matrix=name, state=State.NOT_IN_THE_EDIT, distance=None)
            for name in besides
        ),
    ]


def load_lora(pipeline: Any, file: Path) -> None:
    """Load a safetensors file of a LoRA as diffusers does; ConceptError: it cannot."""
    kind = type(pipeline).__name__
    if not hasattr(pipeline, "load_lora_weights"):
        raise ConceptError(f"diffusers has no LoRA loader for {kind}: {file} cannot be checked")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ConceptError(f"{file} is not a safetensors file: {first_line(error)}") from error
    try:
        with quiet_loaders():
            pipeline.load_lora_weights(tensors)
    except (ValueError, KeyError, TypeError, IndexError, NotImplementedError) as error:
        # diffusers has no error of its own for files whose names it does not know.
        raise ConceptError(
            f"diffusers cannot load {file} into {kind}: {first_line(error)}"
        ) from error
    except RuntimeError as error:  # PyTorch's of other shapes, a line for each matrix
        reason = str(error).splitlines()[-1].strip()
        raise ConceptError(f"diffusers cannot load {file} into {kind}: {reason}") from error


def _layer(parts: Mapping[str, nn.Module], name: str) -> Any:
    part, _, parameter = name.partition(".")
    return parts[part].get_submodule(parameter.removesuffix(".weight"))


@torch.inference_mode()
def _compared(
    name: str, layer: Any, original_ED: torch.Tensor, edited_ED: torch.Tensor
) -> CheckedMatrix:
    generator = torch.Generator().manual_seed(0)
    input_XD = torch.randn(INPUTS, original_ED.shape[1], generator=generator).to(original_ED)
    loaded_XE, bias = layer(input_XD), layer.bias
    before_XE = F.linear(input_XD, original_ED, bias)
    edited_XE = F.linear(input_XD, edited_ED.to(original_ED), bias)
    rounding = ROUNDING * float(edited_XE.norm())
    change, left = float((edited_XE - before_XE).norm()), float((loaded_XE - edited_XE).norm())
    if left <= NEAR * change + rounding:
        state = State.APPLIED
    elif float((loaded_XE - before_XE).norm()) <= rounding:
        state = State.NOT_APPLIED
    else:
        state = State.DIFFERS
    return CheckedMatrix(matrix=name, state=state, distance=left / max(change, rounding))


def _changed(parts: Mapping[str, nn.Module]) -> Iterator[str]:
    """Yield the public names of the matrices that a loaded LoRA changes, by peft's layers."""
    for part, network in parts.items():
        for path, module in network.named_modules():
            if len(getattr(module, "lora_A", ())):
                yield f"{part}.{path}.weight"
