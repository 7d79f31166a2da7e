"""The folder of an edit: the delta, its manifest, LoRA files, and on request a whole model."""

from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from engine.editing.checkpoint import copy_with
from engine.editing.delta import norm, weight_hash, write_delta
from engine.editing.delta_file import DELTA
from engine.editing.embeddings import moves_tokens
from engine.editing.lora import (
    KOHYA_FILE,
    PEFT_FILE,
    Factors,
    factorize,
    kohya_tools,
    peft_tools,
    without_loader,
    write_lora,
)
from engine.editing.solve import EditSolution
from engine.files import is_folder
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.registry import BUILT_IN, model_hash, pinned, split_variant, with_variant
from jobs.editing.images import Shown
from jobs.editing.manifest import MANIFEST, manifest_text
from jobs.editing.plan import EditPlan
from jobs.editing.whole import concepts_hash
from schemas.manifest import MANIFEST_VERSION, EditManifest, Matrix

FULL_MODEL = "model"
"""The complete diffusers folder inside an edit's folder."""
RECORDED = ("dqf", "torch", "transformers", "diffusers", "safetensors")
"""Distributions whose versions an edit records."""


def write_edit(
    work: Path, plan: EditPlan, *, model: Diffusion, solved: EditSolution, shown: Shown
) -> EditManifest:
    """Write an edit's folder, without the images, and return its manifest.

    ConceptError: the model's folder holds no safetensors file of a matrix.
    """
    originals, weights = solved.originals, solved.weights
    factors = {n: factorize(solved.changes[n], originals[n]) for n in weights}
    name, about = portable_name(model.name), metadata(plan)
    write_delta(work / DELTA, weights, originals=originals, model=name, about=about)
    if not (without_loader(model, weights) or moves_tokens(weights)):
        write_lora(work, factors, model=model, about=about)
    if plan.full_model:
        copy_with(source_folder(model.name), work / FULL_MODEL, tensors=weights)
    manifest = EditManifest(
        version=MANIFEST_VERSION,
        model=name,
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
        versions={package: version(package) for package in RECORDED},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    (work / MANIFEST).write_text(manifest_text(manifest))
    return manifest


def metadata(plan: EditPlan) -> dict[str, str]:
    """Return the metadata of the delta and the LoRA files: `modelspec.*` keys, which image tools
    show (the Stability AI model metadata standard 1.0.1), and dqf's own.

    Equal edits have equal metadata: there is no date, and concepts count in any order.
    """
    # A LoRA is passed on: of a folder on this machine its last name is enough.
    named, variant = split_variant(portable_name(plan.model))
    name = with_variant(Path(named).name if is_folder(named) else named, variant)
    first = ("token embeddings",) if plan.settings.embeddings else ()
    components = ", ".join((*first, *plan.settings.components))
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": f"Edit of {name}, concepts: {len(plan.concepts)}",
        "modelspec.description": f"Closed-form edit of {components} by dqf",
        "modelspec.implementation": "diffusers",
        "dqf_base_model": name,
        "dqf_base_model_hash": model_hash(plan.model),
        "dqf_components": components,
        "dqf_concepts_hash": concepts_hash(plan.concepts),
        "dqf_version": version("dqf"),
    }


def lora_note(model: Diffusion, names: Iterable[str]) -> str:
    """Return which LoRA files an edit of these weights has and which tools load them, or why
    none."""
    names = tuple(names)
    if moves_tokens(names):
        return (
            "none: no LoRA carries the token embeddings that moved; `dqf generate --edit EDIT "
            "PROMPT` and --full-model apply the edit"
        )
    lacking = without_loader(model, names)
    if lacking:
        return (
            f"none: diffusers has no LoRA loader for {' and '.join(lacking)} of "
            f"{model.family.pipeline}; `dqf generate --edit EDIT PROMPT` and --full-model "
            "apply the edit"
        )
    tools = kohya_tools(model)
    if model.family.denoiser != "unet":
        has_comfyui = "ComfyUI" in peft_tools(model)
        readers = "diffusers; ComfyUI its transformer's part" if has_comfyui else "diffusers"
        second = f", {KOHYA_FILE} ({', '.join(tools)})" if tools else ""
        return f"{PEFT_FILE} ({readers}){second}"
    return f"{PEFT_FILE} (diffusers), {KOHYA_FILE} ({', '.join(tools)})"


def portable_name(model: str) -> str:
    """Return a model's name in a form that is valid anywhere: for a folder, its absolute path."""
    named, variant = split_variant(model)
    if named in BUILT_IN or not is_folder(named):
        return pinned(model)
    return with_variant(str(Path(named).resolve()), variant)


def _matrix(name: str, *, original: torch.Tensor, weight: torch.Tensor, factors: Factors) -> Matrix:
    before = original.detach().cpu().double()
    norm_before = norm(before)
    return Matrix(
        name=name,
        shape=tuple(before.shape),
        rank=factors.rank,
        norm_before=norm_before,
        relative_change=norm(weight.detach().cpu().double() - before) / norm_before,
        hash_before=weight_hash(original),
        hash_after=weight_hash(weight),
    )
