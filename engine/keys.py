"""Keys of an edit: what a linear projection of the text encoder reads, token by token.

Shapes: N prompts, T tokens, P pairs or keys, D the projection's inputs (suffixes `_NT`, `_NTD`,
`_PD`, `_P`). Keys are float64: the model runs in its own precision, the algebra does not.
"""
# ruff: noqa: N815 - fields that are tensors carry shape suffixes

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.captions import find_subject
from engine.hooks import input_of
from engine.prompts import PromptPair
from schemas.errors import ConceptError
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


def tokenize(tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:  # noqa: ANN401
    """Return the ids of texts padded as the diffusers pipeline pads them, `ids_NT`."""
    padded = tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    return padded.input_ids


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
    tokenizer: Any,  # noqa: ANN401
    texts: Sequence[str],
) -> dict[str, torch.Tensor]:
    """Return the keys `_TD` of each distinct text; each is run once."""
    distinct = list(dict.fromkeys(texts))
    ids_NT = tokenize(tokenizer, distinct)
    return dict(
        zip(distinct, projection_inputs(text_encoder, projection, ids_NT).unbind(), strict=True)
    )


def subject_end(tokenizer: Any, caption: Caption) -> int:  # noqa: ANN401
    """Return the position of the last subject token; ConceptError if the prompt is cut there."""
    try:
        last = find_subject(tokenizer, caption).stop - 1
    except ValueError as error:
        raise ConceptError(f"concept {caption.subject!r}: {error}") from error
    if last >= tokenizer.model_max_length - 1:
        raise ConceptError(
            f"concept {caption.subject!r} is too long: {caption.caption!r} has more than "
            f"{tokenizer.model_max_length} tokens"
        )
    return last


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
    tokenizer: Any,  # noqa: ANN401
    pairs: Sequence[PromptPair],
    *,
    roles: RoleWeights,
) -> KeyPairs:
    """Return the aligned keys of prompt pairs with the weights of the concept prompts' tokens."""
    texts = [caption.caption for pair in pairs for caption in (pair.source, pair.target)]
    key_TD = keys_of(text_encoder, projection, tokenizer, texts)
    sources, targets, weights = [], [], []
    for pair in pairs:
        last = subject_end(tokenizer, pair.source)
        weight_T = _weights(tokenizer, pair.source, last=last, roles=roles)
        source, target = align(
            len(weight_T), source_last=last, target_last=subject_end(tokenizer, pair.target)
        )
        sources.append(key_TD[pair.source.caption][source])
        targets.append(key_TD[pair.target.caption][target])
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
    tokenizer: Any,  # noqa: ANN401
    captions: Sequence[Caption],
    *,
    roles: RoleWeights,
) -> Keys:
    """Return the keys of what is to be kept, from the last subject token on."""
    key_TD = keys_of(text_encoder, projection, tokenizer, [c.caption for c in captions])
    keys, weights = [], []
    for caption in captions:
        last = subject_end(tokenizer, caption)
        keys.append(key_TD[caption.caption][last:])
        weights.append(_weights(tokenizer, caption, last=last, roles=roles)[last:])
    weight_P = torch.cat(weights)
    return Keys(key_PD=torch.cat(keys)[weight_P > 0], weight_P=weight_P[weight_P > 0])


def _weights(
    tokenizer: Any,  # noqa: ANN401
    caption: Caption,
    *,
    last: int,
    roles: RoleWeights,
) -> torch.Tensor:
    ids_T = tokenize(tokenizer, [caption.caption])[0]
    return role_weights(ids_T, last=last, eos_id=tokenizer.eos_token_id, weights=roles)
