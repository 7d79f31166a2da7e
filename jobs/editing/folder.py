"""The folder of an edit: the delta, its manifest, LoRA files, and on request a whole model."""

from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from engine.editing.checkpoint import copy_with
from engine.editing.delta import DELTA, norm, weight_hash, write_delta
from engine.editing.lora import (
    KOHYA_FILE,
    PEFT_FILE,
    Factors,
    factorize,
    kohya_tools,
    without_loader,
    write_lora,
)
from engine.editing.solve import EditSolution
from engine.files import is_folder
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.registry import BUILT_IN, model_hash, pinned
from jobs.editing.images import Shown
from jobs.editing.manifest import MANIFEST, manifest_text
from jobs.editing.plan import EditPlan
from schemas.manifest import MANIFEST_VERSION, EditManifest, Matrix

FULL_MODEL = "model"
"""The complete diffusers folder inside an edit's folder."""
PACKAGES = ("dqf", "torch", "transformers", "diffusers", "safetensors")


def write_edit(
    work: Path, plan: EditPlan, *, model: Diffusion, solved: EditSolution, shown: Shown
) -> EditManifest:
    """Write an edit's folder, without the images, and return its manifest.

    ConceptError: the model's folder holds no safetensors file of a matrix.
    """
    originals, weights = solved.originals, solved.weights
    factors = {n: factorize(solved.changes[n], originals[n]) for n in weights}
    write_delta(work / DELTA, weights, originals=originals, model=portable_name(model.name))
    if not without_loader(model, weights):
        write_lora(work, factors, model=model)
    if plan.full_model:
        copy_with(source_folder(model.name), work / FULL_MODEL, tensors=weights)
    manifest = EditManifest(
        version=MANIFEST_VERSION,
        model=portable_name(model.name),
        model_hash=model_hash(model.name),
        concepts=plan.concepts,
        settings=plan.settings,
        located=plan.located,
        numerics=plan.numerics,
        scorer=plan.scorer,
        key_pairs=solved.key_pairs,
        kept_keys=solved.kept_keys,
        key_seconds=solved.key_seconds,
        solve_seconds=solved.solve_seconds,
        scores=shown.scores,
        untouched_change=shown.untouched_change,
        matrices=tuple(
            _matrix(n, original=originals[n], weight=weights[n], factors=factors[n])
            for n in weights
        ),
        lora=lora_note(model, weights),
        versions={package: version(package) for package in PACKAGES},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    (work / MANIFEST).write_text(manifest_text(manifest))
    return manifest


def lora_note(model: Diffusion, names: Iterable[str]) -> str:
    """Return which LoRA files an edit of these weights has and which tools load them, or why
    none."""
    lacking = without_loader(model, names)
    if lacking:
        return (
            f"none: diffusers has no LoRA loader for {' and '.join(lacking)} of "
            f"{model.family.pipeline}; `dqf generate --edit EDIT PROMPT` and --full-model "
            "apply the edit"
        )
    tools = kohya_tools(model)
    if model.family.denoiser != "unet":
        first = f"{PEFT_FILE} (diffusers; ComfyUI its transformer's part)"
        return (
            f"{first}, {KOHYA_FILE} ({', '.join(tools)})" if tools else f"{PEFT_FILE} (diffusers)"
        )
    return f"{PEFT_FILE} (diffusers), {KOHYA_FILE} ({', '.join(tools)})"


def portable_name(model: str) -> str:
    """Return a model's name in a form that is valid anywhere: for a folder, its absolute path."""
    if model in BUILT_IN or not is_folder(model):
        return pinned(model)
    return str(Path(model).resolve())


def _matrix(name: str, *, original: torch.Tensor, weight: torch.Tensor, factors: Factors) -> Matrix:
    before = original.detach().double().cpu()
    norm_before = norm(before)
    return Matrix(
        name=name,
        shape=tuple(before.shape),
        rank=factors.rank,
        norm_before=norm_before,
        relative_change=norm(weight.detach().double().cpu() - before) / norm_before,
        hash_before=weight_hash(original),
        hash_after=weight_hash(weight),
    )
