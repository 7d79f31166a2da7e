"""Keys of an edit: what a linear projection of the text encoder reads, token by token.

Shapes: N prompts, T tokens, P pairs or keys, D the projection's inputs (suffixes `_NT`, `_NTD`,
`_PD`, `_P`). Keys are float64: the model runs in its own precision, the algebra does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.captions import find_subjects
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPrompts:
    """Captions with their keys and the position of the last subject token."""

    ids_NT: torch.Tensor
    key_NTD: torch.Tensor
    last_N: torch.Tensor


def read_prompts(
    text_encoder: nn.Module,
    projection: nn.Linear,
    tokenizer: Any,
    captions: Sequence[Caption],
) -> ReadPrompts:
    """Return what the projection reads of the captions; ConceptError if one does not fit."""
    ids_NT, last_N = subject_ends(tokenizer, captions)
    key_NTD = projection_inputs(text_encoder, projection, ids_NT)
    return ReadPrompts(ids_NT=ids_NT, key_NTD=key_NTD, last_N=last_N)


def subject_ends(tokenizer: Any, captions: Sequence[Caption]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the captions' ids `_NT` and the position of each one's last subject token, `_N`.

    ConceptError: a caption does not fit the tokenizer.
    """
    try:
        ids_NT, spans = find_subjects(tokenizer, captions)
    except PlanError as error:
        raise ConceptError(f"the concept cannot be edited: {error}") from error
    return ids_NT, torch.tensor([span.last for span in spans])


def role_weights(
    ids_NT: torch.Tensor, *, last_N: torch.Tensor, eos_id: int, weights: RoleWeights
) -> torch.Tensor:
    """Return the weight of every position, `_NT`; each role's weights sum to its own.

    Positions before the last subject token weigh nothing.
    """
    place_T = torch.arange(ids_NT.shape[1])
    last_N1 = last_N[:, None]
    ends_NT = (ids_NT == eos_id) & (place_T > last_N1)
    eos_N1 = torch.where(ends_NT.any(1), ends_NT.int().argmax(1), ids_NT.shape[1])[:, None]
    roles = (
        (weights.subject, place_T == last_N1),
        (weights.words, (place_T > last_N1) & (place_T < eos_N1)),
        (weights.eos, place_T == eos_N1),
        (weights.pads, place_T > eos_N1),
    )
    return sum(role * on_NT / on_NT.sum(1, keepdim=True).clamp(min=1) for role, on_NT in roles)  # type: ignore[return-value]


def gather_pairs(
    text_encoder: nn.Module,
    projection: nn.Linear,
    tokenizer: Any,
    pairs: Sequence[PromptPair],
    *,
    roles: RoleWeights,
) -> KeyPairs:
    """Return the aligned keys of prompt pairs with the weights of the concept prompts' tokens.

    Positions advance together from the last subject token of each prompt; where the target prompt
    ends first its last position, a pad, stands for the rest.
    """
    captions = [caption for pair in pairs for caption in (pair.source, pair.target)]
    read = read_prompts(text_encoder, projection, tokenizer, captions)
    ids_NT, source_last_N, target_last_N = read.ids_NT[::2], read.last_N[::2], read.last_N[1::2]
    weight_NT = role_weights(
        ids_NT, last_N=source_last_N, eos_id=tokenizer.eos_token_id, weights=roles
    )
    prompt_P, place_P = (weight_NT > 0).nonzero(as_tuple=True)
    ahead_P = (target_last_N - source_last_N)[prompt_P]
    target_place_P = (place_P + ahead_P).clamp(max=ids_NT.shape[1] - 1)
    return KeyPairs(
        source_PD=read.key_NTD[2 * prompt_P, place_P],
        target_PD=read.key_NTD[2 * prompt_P + 1, target_place_P],
        weight_P=weight_NT[prompt_P, place_P],
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
    read = read_prompts(text_encoder, projection, tokenizer, captions)
    weight_NT = role_weights(
        read.ids_NT, last_N=read.last_N, eos_id=tokenizer.eos_token_id, weights=roles
    )
    return Keys(key_PD=read.key_NTD[weight_NT > 0], weight_P=weight_NT[weight_NT > 0])
