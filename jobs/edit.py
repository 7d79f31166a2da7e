"""Edit a batch of concepts: locate, collect keys, solve once, write the edited model's folder."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine import edit, folder, keys, prompts
from engine.components import sites_of
from engine.models import Diffusion, Skeleton, open_model, open_tokenizer
from jobs.edit_images import Shown, compare
from jobs.edit_report import EditReport, Located
from schemas.component import Kind
from schemas.concept import Concept
from schemas.errors import ConceptError, UnknownComponent
from schemas.plan import Numerics

Note = Callable[[str], None]
"""Receives one line of progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditJob:
    """What `edit_batch` needs."""

    concepts: tuple[Concept, ...]
    model: str
    """A built-in name, a diffusers folder or a hub id."""
    located: Located
    out: Path
    settings: edit.EditSettings = field(default_factory=edit.EditSettings)
    numerics: Numerics
    """Steps and guidance of the images before and after."""
    scorer: str
    """What scores them."""
    images: int = 2
    """Images per prompt before and after; 0: write the model only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """The edited weight of one projection, and how it came about."""

    projection: nn.Linear
    name: str
    """The weight's name in the text encoder."""
    weight: torch.Tensor
    key_pairs: int
    kept_keys: int
    key_seconds: float
    solve_seconds: float

    @property
    def relative_change(self) -> float:
        """Frobenius norm of dW over that of W0."""
        original = self.projection.weight.detach().double().cpu()
        return float((self.weight.double().cpu() - original).norm() / original.norm())


def edit_batch(job: EditJob, *, note: Note) -> EditReport:
    """Write the edited model to `job.out` and return what was done; nothing is left on failure.

    ConceptError: `out` is occupied, a concept does not fit the tokenizer. UnknownComponent: the
    located component is no text-encoder layer that ends in a linear projection.
    """
    with folder.new_folder(job.out) as work:
        note(f"opening {job.model}")
        source = folder.source_folder(job.model)
        book = prompts.read_phrasebook(source)
        check_prompts(open_tokenizer(job.model), job.concepts, book=book)
        model = open_model(job.model)
        solved = solve(model, job, book=book)
        note(
            f"{solved.key_pairs} key pairs and {solved.kept_keys} kept keys in "
            f"{solved.key_seconds:.2f} s, solved in {solved.solve_seconds:.2f} s"
        )
        folder.copy_with(source, work, part="text_encoder", tensors={solved.name: solved.weight})
        shown = Shown(scores=(), untouched_change=None)
        if job.images:
            note("drawing and scoring images before and after")
            shown = compare(
                model,
                solved.projection,
                solved.weight,
                concepts=job.concepts,
                book=book,
                images=job.images,
                numerics=job.numerics,
                scorer=job.scorer,
                path=work / "before_after.png",
            )
        report = _report(job, solved, shown)
        report.write(work / "edit.json")
    return report


def check_prompts(
    tokenizer: Any,
    concepts: Sequence[Concept],
    *,
    book: prompts.Phrasebook,
) -> None:
    """Raise ConceptError if a prompt of a concept or target does not fit the tokenizer."""
    pairs = [pair for concept in concepts for pair in prompts.prompt_pairs(concept, book=book)]
    keys.subject_ends(tokenizer, [caption for p in pairs for caption in (p.source, p.target)])


def solve(model: Diffusion, job: EditJob, *, book: prompts.Phrasebook) -> Solved:
    """Return the edited weight of the located component for all concepts at once."""
    projection = projection_of(model, job.located.component)
    weight_ED = projection.weight.detach().cpu()
    start = time.perf_counter()
    parts = (model.text_encoder, projection, model.tokenizer)
    pairs = keys.gather_pairs(
        *parts,
        [pair for concept in job.concepts for pair in prompts.prompt_pairs(concept, book=book)],
        roles=job.settings.roles,
    )
    kept = keys.gather_kept(
        *parts,
        prompts.kept_captions(job.concepts, book=book),
        roles=job.settings.preserve_roles,
    )
    collected = time.perf_counter()
    change_ED = edit.solve_change(
        edit.pair_statistics(weight_ED, pairs),
        kept=edit.kept_statistics(weight_ED, kept),
        ridge=job.settings.ridge,
        preserve=job.settings.preserve,
    )
    return Solved(
        projection=projection,
        name=_parameter_name(model.text_encoder, projection),
        weight=edit.edited_weight(weight_ED, change_ED),
        key_pairs=len(pairs.weight_P),
        kept_keys=len(kept.weight_P),
        key_seconds=collected - start,
        solve_seconds=time.perf_counter() - collected,
    )


def projection_of(model: Diffusion | Skeleton, component: str) -> nn.Linear:
    """Return the linear layer that ends a text-encoder component: out_proj or fc2."""
    site = sites_of(model, [component])[component]
    for name in ("out_proj", "fc2"):
        projection = getattr(site.module, name, None)
        editable = site.component.kind in (Kind.SELF_ATTENTION, Kind.MLP)
        if editable and component.startswith("text_encoder.") and isinstance(projection, nn.Linear):
            return projection
    raise UnknownComponent(
        f"{component} cannot be edited: an edit needs a self_attn or mlp of the text encoder"
    )


def _parameter_name(text_encoder: nn.Module, projection: nn.Linear) -> str:
    names = (n for n, p in text_encoder.named_parameters() if p is projection.weight)
    name = next(names, None)
    if name is None:
        raise ConceptError("the component is not in the model's first text encoder")
    return name


def _hash(weight_ED: torch.Tensor) -> str:
    content = weight_ED.detach().float().cpu().contiguous().numpy().tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _report(job: EditJob, solved: Solved, shown: Shown) -> EditReport:
    return EditReport(
        out=str(job.out),
        model=job.model,
        located=job.located,
        concepts=job.concepts,
        settings=job.settings,
        key_pairs=solved.key_pairs,
        kept_keys=solved.kept_keys,
        key_seconds=solved.key_seconds,
        solve_seconds=solved.solve_seconds,
        relative_change=solved.relative_change,
        weight_before=_hash(solved.projection.weight),
        weight_after=_hash(solved.weight),
        scores=shown.scores,
        untouched_change=shown.untouched_change,
    )
