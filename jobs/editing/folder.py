"""The folder that an edit leaves: the delta, its manifest, LoRA files, maybe a whole model."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from engine.editing.checkpoint import copy_with
from engine.editing.delta import DELTA, weight_hash, write_delta
from engine.editing.lora import KOHYA_FILE, PEFT_FILE, Factors, factorise, is_loadable, write_lora
from engine.files import is_folder
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.registry import BUILT_IN, model_hash, pinned
from jobs.editing.manifest import MANIFEST
from schemas.manifest import MANIFEST_VERSION, EditManifest, Matrix

FULL_MODEL = "model"
"""The complete diffusers folder inside an edit's folder."""
PACKAGES = ("dqf", "torch", "transformers", "diffusers", "safetensors")


def write_edit(
    work: Path,
    *,
    model: Diffusion,
    originals: Mapping[str, torch.Tensor],
    weights: Mapping[str, torch.Tensor],
    changes_float64: Mapping[str, torch.Tensor],
    manifest: Mapping[str, object],
    full_model: bool,
) -> EditManifest:
    """Write all but the images into an edit's folder and return its manifest.

    Matrices are by public name: `originals` W0, `weights` W = W0 + dW rounded, `changes_float64`
    dW as solved. `manifest` has at least `concepts` and `settings` in plain types; its other fields
    are kept, but for those that are known here. ConceptError: the model's folder holds no
    safetensors file of a matrix.
    """
    factors = {n: factorise(changes_float64[n], originals[n]) for n in weights}
    write_delta(work / DELTA, weights, originals=originals, model=portable_name(model.name))
    if is_loadable(model):
        write_lora(work, factors, model=model)
    if full_model:
        copy_with(source_folder(model.name), work / FULL_MODEL, tensors=weights)
    written = EditManifest.model_validate(
        {
            **manifest,
            **_about(model),
            "matrices": [
                _matrix(n, original=originals[n], weight=weights[n], factors=factors[n])
                for n in weights
            ],
        }
    )
    text = json.dumps(written.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (work / MANIFEST).write_text(text + "\n")
    return written


def _about(model: Diffusion) -> dict[str, object]:
    """Return the fields of a manifest that say what was edited by what."""
    return {
        "version": MANIFEST_VERSION,
        "model": portable_name(model.name),
        "model_hash": model_hash(model.name),
        "lora": f"{PEFT_FILE}, {KOHYA_FILE}"
        if is_loadable(model)
        else "none: diffusers has no LoRA loader for this model's text encoder",
        "versions": {package: version(package) for package in PACKAGES},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def portable_name(model: str) -> str:
    """Return a model's name as it means the same anywhere: a folder's is its absolute path."""
    if model in BUILT_IN or not is_folder(model):
        return pinned(model)
    return str(Path(model).resolve())


def _matrix(name: str, *, original: torch.Tensor, weight: torch.Tensor, factors: Factors) -> Matrix:
    before = original.detach().double().cpu()
    norm = float(before.norm())
    return Matrix(
        name=name,
        shape=tuple(before.shape),
        rank=factors.rank,
        norm_before=norm,
        relative_change=float((weight.detach().double().cpu() - before).norm()) / norm,
        hash_before=weight_hash(original),
        hash_after=weight_hash(weight),
    )
