"""Token positions of a prompt that an edit reads, their weights, and which of them correspond.

Shapes: N prompts, T tokens, P rows that are read (suffixes `_NT`, `_N`, `_P`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.model.tokens import Span
from schemas.edit_settings import RoleWeights

PADS = 4
"""Positions that stand for all pads: evenly spaced from the first to the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Single positions of prompts, in order, with the weight of each."""

    prompt_P: torch.Tensor
    place_P: torch.Tensor
    weight_P: torch.Tensor

    def __len__(self) -> int:
        return len(self.prompt_P)

    def where(self, chosen_P: torch.Tensor) -> "Rows":
        """Return the rows that a mask chooses."""
        return Rows(
            prompt_P=self.prompt_P[chosen_P],
            place_P=self.place_P[chosen_P],
            weight_P=self.weight_P[chosen_P],
        )


def prompt_rows(spans: Sequence[Span], length: int, weights: RoleWeights | None) -> Rows:
    """Return the positions with a positive weight; without weights all, each of weight 1."""
    if weights is None:
        return every_row(len(spans), length)
    return role_rows(spans, length, weights)


def role_rows(spans: Sequence[Span], length: int, weights: RoleWeights) -> Rows:
    """Return the positions with a positive weight in prompts of `length` tokens."""
    weight_NT = role_weights(spans, length, weights)
    prompt_P, place_P = weight_NT.nonzero(as_tuple=True)
    return Rows(prompt_P=prompt_P, place_P=place_P, weight_P=weight_NT[prompt_P, place_P])


def every_row(prompts: int, length: int) -> Rows:
    """Return every position of prompts of `length` tokens, each of weight 1."""
    prompt_P = torch.arange(prompts).repeat_interleave(length)
    return Rows(
        prompt_P=prompt_P,
        place_P=torch.arange(length).repeat(prompts),
        weight_P=torch.ones(len(prompt_P), dtype=torch.float64),
    )


def role_weights(spans: Sequence[Span], length: int, weights: RoleWeights) -> torch.Tensor:
    """Return the weight of every position, `_NT`; the weights of a role's positions sum to the
    role's weight."""
    place_T = torch.arange(length)
    first_N1 = torch.tensor([[span.first] for span in spans])
    last_N1 = torch.tensor([[span.last] for span in spans])
    eos_N1 = torch.tensor([[span.eos] for span in spans])
    pads_NT = torch.zeros(len(spans), length, dtype=torch.bool)
    for row, span in enumerate(spans):
        pads_NT[row, pad_places(span.pads(length))] = True
    roles = (
        (weights.before, (place_T >= first_N1) & (place_T < last_N1)),
        (weights.subject, place_T == last_N1),
        (weights.words, (place_T > last_N1) & (place_T < eos_N1)),
        (weights.eos, place_T == eos_N1),
        (weights.pads, pads_NT),
    )
    return sum(
        (role * on_NT.double() / on_NT.sum(1, keepdim=True).clamp(min=1) for role, on_NT in roles),
        start=torch.zeros(len(spans), length, dtype=torch.float64),
    )


def pad_places(pads: Sequence[int]) -> list[int]:
    """Return up to PADS of the pads' positions, evenly spaced, including the first and the last."""
    if len(pads) <= PADS:
        return list(pads)
    return [pads[round(n * (len(pads) - 1) / (PADS - 1))] for n in range(PADS)]


def facing_places(rows: Rows, sources: Sequence[Span], targets: Sequence[Span]) -> torch.Tensor:
    """Return the position of the replacement's prompt, `_P`, that faces each row of the concept's
    prompt.

    The subjects' last tokens face each other and so do the words after them, in order, the EOS
    tokens, and pads at equal positions; where the replacement's prompt has no such token, its
    nearest.
    """
    (source_first, source_last, source_eos), (target_first, target_last, target_eos) = (
        torch.tensor([(s.first, s.last, s.eos) for s in spans])[rows.prompt_P].T
        for spans in (sources, targets)
    )
    place_P, ahead = rows.place_P, rows.place_P + target_last - source_last
    word = torch.minimum(torch.maximum(ahead, target_first), target_eos - 1)
    after = torch.maximum(place_P, target_eos + 1)
    in_front = torch.minimum(place_P, target_first - 1).clamp(min=0)
    facing_P = torch.where(place_P < source_eos, word, target_eos)
    facing_P = torch.where(place_P > source_eos, after, facing_P)
    return torch.where(place_P < source_first, in_front, facing_P)
