"""Editing a batch of concepts out of a model, one component after another.

Token embeddings, if asked for, move before all else.
The first component is solved for what the concepts' prompts should say at its output. Each further
one, in the network's order, is solved on the model as edited so far for the remaining change, and
to undo the effect of earlier edits on kept prompts.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
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
from engine.editing.delta import weights_of
from engine.editing.edit_prompts import EditPrompts, edit_prompts
from engine.editing.editable import editable_together
from engine.editing.embeddings import moved_embeddings
from engine.editing.keys import BATCH, kept_keys, pair_keys
from engine.editing.pairs import PromptPair
from engine.model.components import sites_of
from engine.model.model import Diffusion
from engine.model.vocabulary import Phrasebook
from schemas.caption import Caption
from schemas.component import Kind
from schemas.concept import Concept
from schemas.edit_settings import KEPT_ROLES, EditSettings, RoleWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Prompts that are read together, for components that read the same rows."""

    components: tuple[str, ...]
    pairs: tuple[PromptPair, ...] = ()
    """Concept prompts with those of their replacements, or"""
    captions: tuple[Caption, ...] = ()
    """captions that are kept."""
    roles: RoleWeights | None
    """None: every position of the kept captions."""


def sum_batches(
    model: Diffusion, batches: Sequence[Batch], edited: Mapping[str, torch.Tensor]
) -> Iterator[KeyStatistics]:
    """Yield each batch's sums, read from the model with the weights `edited` so far."""
    targets = {
        names: editable_together(model, names) for names in {batch.components for batch in batches}
    }
    for batch in batches:
        target = targets[batch.components]
        if batch.pairs and batch.roles:
            keys = pair_keys(model, target, batch.pairs, roles=batch.roles, edited=edited)
        else:
            keys = kept_keys(model, target, batch.captions, roles=batch.roles, edited=edited)
        yield keys.sums()


NOTHING_KNOWN: Mapping[str, KeyStatistics] = MappingProxyType({})
NOTHING_EDITED: Mapping[str, torch.Tensor] = MappingProxyType({})
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
    """dW_ED, float64; of token embeddings one row for each token."""
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
    `settings.general` is not 0; else those of `first_reads` save time.
    ConceptError: a concept does not fit the tokenizer. UnknownComponent: a component is unknown or
    cannot be edited.
    """
    collect = collect or in_this_process(model)
    prompts = edit_prompts(concepts, book=book, settings=settings)
    weights = moved_embeddings(model, prompts) if settings.embeddings else {}
    originals = {name: weights_of(model)[name].detach() for name in weights}
    changes = {name: (weights[name] - originals[name]).cpu().double() for name in weights}
    unaffected = first_reads(model, settings.components)
    counts, seconds = [0, 0], [0.0, 0.0]
    for names in in_order(model, settings.components):
        start = time.perf_counter()
        general_sums = general.get(names[0])
        usable = names in unaffected and settings.preserve_roles == KEPT_ROLES
        sums = _collected(
            prompts,
            names,
            settings=settings,
            known=general_sums if usable else None,
            sums_over=partial(_added, collect, weights),
            unedited=partial(_added, collect, NOTHING_EDITED),
        )
        collected = time.perf_counter()
        solved = _solved(sums, general_sums, settings)
        projections = editable_together(model, names).projections
        originals |= {n: p.weight.detach() for n, p in projections.items()}
        changes |= solved
        weights |= {n: edited_weight(originals[n], change) for n, change in solved.items()}
        counts = [counts[0] + sums.edits.keys, counts[1] + (sums.kept.keys if sums.kept else 0)]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """The sums from which components that read the same rows are solved."""

    edits: KeyStatistics
    kept: KeyStatistics | None
    exact: KeyStatistics | None


SumsOver = Callable[[Sequence[Batch]], KeyStatistics | None]
"""Returns the sums over all batches; None without any."""


def _added(
    collect: Collect, weights: Mapping[str, torch.Tensor], read: Sequence[Batch]
) -> KeyStatistics | None:
    return total(collect(read, weights))


def _solved(
    sums: _Sums, general: KeyStatistics | None, settings: EditSettings
) -> dict[str, torch.Tensor]:
    """Return dW_ED of each projection of components that read the same rows."""
    anchors = [(sums.kept, settings.preserve), (general, settings.general)]
    return solve_changes(
        sums.edits,
        anchors=tuple(Anchor(sums=s, strength=strength) for s, strength in anchors if s),
        ridge=settings.ridge,
        free_DR=null_space_basis(sums.exact) if sums.exact else None,
    )


def _collected(
    said: EditPrompts,
    names: tuple[str, ...],
    *,
    settings: EditSettings,
    known: KeyStatistics | None,
    sums_over: SumsOver,
    unedited: SumsOver,
) -> _Sums:
    """Return the sums of an edit's prompts; `known` are those over all general captions, which
    `unedited` reads too."""
    edits = sums_over(batches(names, settings.roles, pairs=said.pairs))
    assert edits is not None
    keep = partial(batches, names, settings.preserve_roles)
    return _Sums(
        edits=edits,
        kept=_kept_sums(said, known, keep=keep, sums_over=sums_over, unedited=unedited)
        if settings.preserve > 0
        else None,
        exact=sums_over(batches(names, None, captions=said.exact)),
    )


def _kept_sums(
    said: EditPrompts,
    known: KeyStatistics | None,
    *,
    keep: Callable[..., list[Batch]],
    sums_over: SumsOver,
    unedited: SumsOver,
) -> KeyStatistics | None:
    """Return the sums over kept captions; None without any.

    Subtracting the captions that name a concept from the known sums is faster than reading the
    others.
    """
    if known is None:
        return sums_over(keep(captions=[*said.general, *said.further]))
    mentioning = unedited(keep(captions=said.mentioning))
    further = sums_over(keep(captions=said.further))
    general = known.without(mentioning) if mentioning else known
    return general + further if further else general


def in_order(model: Diffusion, components: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the components that are edited, in the network's order, text encoders first.

    Cross-attentions come together: all of them read the same rows, which are read once.
    """
    sites = sites_of(model, components)
    parts = [e.name for e in model.encoders]

    def order(name: str) -> tuple[int, int]:
        part = name.split(".")[0]
        return (parts.index(part) if part in parts else len(parts), sites[name].component.order)

    names = sorted(set(components), key=order)
    cross = tuple(n for n in names if sites[n].component.kind is Kind.CROSS_ATTENTION)
    return [cross if name in cross else (name,) for name in names if name not in cross[1:]]


def first_reads(model: Diffusion, components: Sequence[str]) -> list[tuple[str, ...]]:
    """Return those of `in_order` whose keys of kept captions no component edited before changes.

    Moved token embeddings change none: no kept caption says such a token.
    """
    encoders, sites = {e.name for e in model.encoders}, sites_of(model, components)
    edited: set[str] = set()
    found: list[tuple[str, ...]] = []
    for names in in_order(model, components):
        part = names[0].split(".")[0]
        reads = {part} if part in encoders else {part, *encoders}
        if sites[names[0]].component.kind in (Kind.TEXT_PROJECTION, Kind.POOLED_PROJECTION):
            reads = encoders
        if edited.isdisjoint(reads):
            found.append(names)
        edited.add(part)
    return found


def batches(
    components: tuple[str, ...],
    roles: RoleWeights | None,
    *,
    pairs: Sequence[PromptPair] = (),
    captions: Sequence[Caption] = (),
) -> list[Batch]:
    """Return prompts of components that read the same rows, in batches of fixed size and order."""
    return [
        *(
            Batch(components=components, roles=roles, pairs=tuple(pairs[start : start + BATCH]))
            for start in range(0, len(pairs), BATCH)
        ),
        *(
            Batch(
                components=components, roles=roles, captions=tuple(captions[start : start + BATCH])
            )
            for start in range(0, len(captions), BATCH)
        ),
    ]


def total(parts: Iterator[KeyStatistics]) -> KeyStatistics | None:
    """Return the sum of sums, in order; None without any."""
    first = next(parts, None)
    return first if first is None else reduce(add, parts, first)
