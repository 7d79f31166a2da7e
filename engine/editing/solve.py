"""Editing a batch of concepts out of a model, one component after another.

The first component is solved for what the concepts' prompts should say at its output. Each further
one, in the network's order, is solved on the model as edited so far for the remaining change, and
to undo the effect of earlier edits on kept prompts.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from types import MappingProxyType

import torch

from engine.editing.closed_form import (
    Anchor,
    KeyStatistics,
    edited_weight,
    null_space_basis,
    solve_changes,
)
from engine.editing.editable import Editable, editable
from engine.editing.keys import BATCH, kept_keys, pair_keys
from engine.editing.pairs import PromptPair, prompt_pairs
from engine.editing.prompts import general_captions, known_names, prompts, split_by_mention
from engine.model.components import sites_of
from engine.model.model import Diffusion
from engine.model.vocabulary import Phrasebook
from schemas.caption import Caption
from schemas.concept import Concept
from schemas.edit_settings import KEPT_ROLES, EditSettings, RoleWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Prompts of one component's edit that are read together."""

    component: str
    pairs: tuple[PromptPair, ...] = ()
    """Concept prompts with those of their replacements, or"""
    captions: tuple[Caption, ...] = ()
    """captions that are kept."""
    roles: RoleWeights | None
    """None: every position of what is kept."""


def sum_batches(
    model: Diffusion, batches: Sequence[Batch], edited: Mapping[str, torch.Tensor]
) -> Iterator[KeyStatistics]:
    """Yield each batch's sums, read from the model with the weights `edited` so far."""
    targets = {name: editable(model, name) for name in {batch.component for batch in batches}}
    for batch in batches:
        target = targets[batch.component]
        if batch.pairs and batch.roles:
            keys = pair_keys(model, target, batch.pairs, roles=batch.roles, edited=edited)
        else:
            keys = kept_keys(model, target, batch.captions, roles=batch.roles, edited=edited)
        yield keys.sums()


NOTHING_KNOWN: Mapping[str, KeyStatistics] = MappingProxyType({})
Collect = Callable[[Sequence[Batch], Mapping[str, torch.Tensor]], Iterator[KeyStatistics]]
"""Returns the sums of batches in order; the workers of a cluster may share the work."""


def in_this_process(model: Diffusion) -> Collect:
    """Return a function that sums batches one after another in this process, with constant
    memory."""
    return lambda batches, edited: sum_batches(model, batches, edited)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSolution:
    """The edited weights of a model, with the changes and originals; all by public names."""

    weights: Mapping[str, torch.Tensor]
    """W0 + dW in the model's dtype."""
    changes: Mapping[str, torch.Tensor]
    """dW_ED, float64."""
    originals: Mapping[str, torch.Tensor]
    """W0."""
    key_pairs: int
    kept_keys: int
    key_seconds: float
    solve_seconds: float


def solve_edit(
    model: Diffusion,
    concepts: Sequence[Concept],
    *,
    book: Phrasebook,
    settings: EditSettings,
    general: Mapping[str, KeyStatistics] = NOTHING_KNOWN,
    collect: Collect | None = None,
) -> EditSolution:
    """Return the edited weights for all concepts at once; the model is not changed.

    `general` holds components' sums over general captions: of every component if
    `settings.general` is not 0; else it saves time where the first component's are known.
    ConceptError: a concept does not fit the tokenizer. UnknownComponent: a component is unknown or
    cannot be edited.
    """
    collect = collect or in_this_process(model)
    pairs = prompt_pairs(concepts, book=book, forms=settings.forms, kept=settings.exactly)
    known = known_names(concepts, book=book, kept=settings.exactly)
    kept, mentioning = split_by_mention(general_captions(book=book), concepts, known=known)
    exact = [
        caption
        for kept_concept in settings.exactly
        for caption in prompts(
            kept_concept.concept, kind=kept_concept.kind, book=book, own=kept_concept.prompts
        )
    ]
    weights: dict[str, torch.Tensor] = {}
    changes: dict[str, torch.Tensor] = {}
    originals: dict[str, torch.Tensor] = {}
    counts, seconds = [0, 0], [0.0, 0.0]
    for site in in_order(model, settings.components):
        start = time.perf_counter()
        name = site.component.name
        edits = total(collect(batches(name, settings.roles, pairs=pairs), weights))
        kept_sums = None
        if settings.preserve > 0:
            # Subtracting the captions that name a concept from the known sums is faster.
            usable = not weights and settings.preserve_roles == KEPT_ROLES
            known_sums = general.get(name) if usable else None
            read = batches(
                name, settings.preserve_roles, captions=mentioning if known_sums else kept
            )
            sums = total(collect(read, weights))
            kept_sums = known_sums.without(sums) if known_sums and sums else known_sums or sums
        exact_sums = total(collect(batches(name, None, captions=exact), weights))
        assert edits is not None
        collected = time.perf_counter()
        anchors = [(kept_sums, settings.preserve), (general.get(name), settings.general)]
        solved = solve_changes(
            edits,
            anchors=tuple(Anchor(sums=s, strength=strength) for s, strength in anchors if s),
            ridge=settings.ridge,
            free_DR=null_space_basis(exact_sums) if exact_sums else None,
        )
        originals |= {n: p.weight.detach() for n, p in site.projections.items()}
        changes |= solved
        weights |= {n: edited_weight(originals[n], change) for n, change in solved.items()}
        counts = [counts[0] + edits.keys, counts[1] + (kept_sums.keys if kept_sums else 0)]
        solved_at = time.perf_counter()
        seconds = [seconds[0] + collected - start, seconds[1] + solved_at - collected]
    return EditSolution(
        weights=weights,
        changes=changes,
        originals=originals,
        key_pairs=counts[0],
        kept_keys=counts[1],
        key_seconds=seconds[0],
        solve_seconds=seconds[1],
    )


def in_order(model: Diffusion, components: Sequence[str]) -> list[Editable]:
    """Return the components that are edited, in the network's order, text encoders first."""
    sites = sites_of(model, components)
    parts = [e.name for e in model.encoders]

    def order(name: str) -> tuple[int, int]:
        part = name.split(".")[0]
        return (parts.index(part) if part in parts else len(parts), sites[name].component.order)

    return [editable(model, name) for name in sorted(set(components), key=order)]


def batches(
    component: str,
    roles: RoleWeights | None,
    *,
    pairs: Sequence[PromptPair] = (),
    captions: Sequence[Caption] = (),
) -> list[Batch]:
    """Return prompts of one component in batches of a fixed size and order."""
    return [
        *(
            Batch(component=component, roles=roles, pairs=tuple(pairs[start : start + BATCH]))
            for start in range(0, len(pairs), BATCH)
        ),
        *(
            Batch(component=component, roles=roles, captions=tuple(captions[start : start + BATCH]))
            for start in range(0, len(captions), BATCH)
        ),
    ]


def total(parts: Iterator[KeyStatistics]) -> KeyStatistics | None:
    """Return the sum of sums, in order; None without any."""
    first = next(parts, None)
    return first if first is None else reduce(add, parts, first)
