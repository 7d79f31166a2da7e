"""Keys of an edit: what a linear projection of the text encoder reads, token by token.

Shapes: N prompts, T tokens, P pairs or keys, D the projection's inputs (suffixes `_NT`, `_NTD`,
`_PD`, `_P`). Keys are float64: the model runs in its own precision, the algebra does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.captions import find_subject, tokenize
from engine.hooks import input_of
from engine.prompts import PromptPair
from schemas.errors import ConceptError, PlanError
from schemas.plan import Caption


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleWeights:
    """How much each role of a token counts in one prompt, whatever its number of positions.

    The published notebook counts positions: 287 of its 291 pairs are EOS and pads.
    """

    subject: float = 1.0
    """The last token of the subject."""
    words: float = 1.0
    """The words after it, together."""
    eos: float = 1.0
    """The first end-of-text token."""
    pads: float = 1.0
    """Every position after that, together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Keys with the weight of each."""

    key_PD: torch.Tensor
    weight_P: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPairs:
    """Keys of concept prompts, the keys of target prompts at the same offsets, and weights."""

    source_PD: torch.Tensor
    target_PD: torch.Tensor
    weight_P: torch.Tensor


@torch.no_grad()
def projection_inputs(
    text_encoder: nn.Module, projection: nn.Linear, ids_NT: torch.Tensor, *, batch: int = 64
) -> torch.Tensor:
    """Return what `projection` reads for each prompt, `_NTD`, running no module after it."""
    device = projection.weight.device
    read = [
        input_of(projection, lambda ids=ids_nT: text_encoder(ids.to(device)))
        for ids_nT in ids_NT.split(batch)
    ]
    return torch.cat(read).double().cpu()


def keys_of(
    text_encoder: nn.Module,
    projection: nn.Linear,
    tokenizer: Any,
    captions: Sequence[Caption],
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return ids `_T` and keys `_TD` of each distinct caption text; each is run once."""
    distinct = list(dict.fromkeys(caption.caption for caption in captions))
    ids_NT = tokenize(tokenizer, distinct)
    key_NTD = projection_inputs(text_encoder, projection, ids_NT)
    return dict(zip(distinct, zip(ids_NT, key_NTD, strict=True), strict=True))


def subject_end(tokenizer: Any, caption: Caption) -> int:
    """Return the position of the last subject token; ConceptError if the prompt does not fit."""
    try:
        return find_subject(tokenizer, caption).last
    except PlanError as error:
        raise ConceptError(f"concept {caption.subject!r} cannot be edited: {error}") from error


def role_weights(
    ids_T: torch.Tensor, *, last: int, eos_id: int, weights: RoleWeights
) -> torch.Tensor:
    """Return the weight of every position of a prompt; each role's weights sum to its own."""
    ends = (ids_T == eos_id).nonzero().flatten().tolist()
    eos = next((n for n in ends if n > last), len(ids_T))
    weight_T = torch.zeros(len(ids_T), dtype=torch.float64)
    weight_T[last] = weights.subject
    for role, start, stop in (
        (weights.words, last + 1, eos),
        (weights.eos, eos, eos + 1),
        (weights.pads, eos + 1, len(ids_T)),
    ):
        if start < min(stop, len(ids_T)):
            weight_T[start:stop] = role / (stop - start)
    return weight_T


def align(length: int, *, source_last: int, target_last: int) -> tuple[list[int], list[int]]:
    """Return positions of the concept prompt and, for each, that of the target prompt.

    Both start at the last subject token and advance together; where the target prompt ends first
    its last position, a pad, stands for the rest.
    """
    source = list(range(source_last, length))
    return source, [min(target_last + n - source_last, length - 1) for n in source]


def gather_pairs(
    text_encoder: nn.Module,
    projection: nn.Linear,
    tokenizer: Any,
    pairs: Sequence[PromptPair],
    *,
    roles: RoleWeights,
) -> KeyPairs:
    """Return the aligned keys of prompt pairs with the weights of the concept prompts' tokens."""
    captions = [caption for pair in pairs for caption in (pair.source, pair.target)]
    found = keys_of(text_encoder, projection, tokenizer, captions)
    sources, targets, weights = [], [], []
    for pair in pairs:
        ids_T, source_TD = found[pair.source.caption]
        last = subject_end(tokenizer, pair.source)
        weight_T = role_weights(ids_T, last=last, eos_id=tokenizer.eos_token_id, weights=roles)
        source, target = align(
            len(ids_T), source_last=last, target_last=subject_end(tokenizer, pair.target)
        )
        sources.append(source_TD[source])
        targets.append(found[pair.target.caption][1][target])
        weights.append(weight_T[source])
    weight_P = torch.cat(weights)
    counts = weight_P > 0
    return KeyPairs(
        source_PD=torch.cat(sources)[counts],
        target_PD=torch.cat(targets)[counts],
        weight_P=weight_P[counts],
    )


def gather_kept(
    text_encoder: nn.Module,
    projection: nn.Linear,
    tokenizer: Any,
    captions: Sequence[Caption],
    *,
    roles: RoleWeights,
) -> Keys:
    """Return the keys of what is to be kept, from the last subject token on."""
    found = keys_of(text_encoder, projection, tokenizer, captions)
    keys, weights = [], []
    for caption in captions:
        ids_T, key_TD = found[caption.caption]
        try:
            last = subject_end(tokenizer, caption)
        except ConceptError:
            continue  # a kept caption that does not fit protects nothing, and harms nothing
        weight_T = role_weights(ids_T, last=last, eos_id=tokenizer.eos_token_id, weights=roles)
        keys.append(key_TD[last:])
        weights.append(weight_T[last:])
    weight_P = torch.cat(weights)
    return Keys(key_PD=torch.cat(keys)[weight_P > 0], weight_P=weight_P[weight_P > 0])
