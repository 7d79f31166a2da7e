"""Where a caption's subject is among its tokens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from schemas.errors import PlanError
from schemas.plan import Caption


@dataclass(frozen=True, slots=True)
class Span:
    """Token positions start .. stop - 1 of a padded caption, the start token being position 0."""

    start: int
    stop: int

    @property
    def last(self) -> int:
        """Position of the last token: where the paper finds the causal state."""
        return self.stop - 1


def tokenize(tokenizer: Any, captions: Sequence[str]) -> torch.Tensor:
    """Return token ids_BL padded to the tokenizer's limit L, as diffusers' pipelines pad."""
    return tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def find_subject(tokenizer: Any, caption: Caption) -> Span:
    """Return the span of the subject's tokens, found by character offsets.

    PlanError: the caption has more tokens than the tokenizer's limit, or no token of the caption
    lies in the subject.
    """
    return find_subjects(tokenizer, [caption])[1][0]


def find_subjects(tokenizer: Any, captions: Sequence[Caption]) -> tuple[torch.Tensor, list[Span]]:
    """Return `tokenize`'s ids_NL and `find_subject`'s span of each caption, in one pass."""
    limit = tokenizer.model_max_length
    encoded = tokenizer(
        [caption.caption for caption in captions],
        padding="max_length",
        max_length=limit,
        return_offsets_mapping=True,
    )
    spans = []
    for caption, ids, offsets in zip(
        captions, encoded.input_ids, encoded.offset_mapping, strict=True
    ):
        if len(ids) > limit:
            raise PlanError(
                f"caption {caption.caption!r} has {len(ids)} tokens, the model's limit is {limit}: "
                "shorten it"
            )
        spans.append(_span(caption, offsets))
    return torch.tensor(encoded.input_ids), spans


def _span(caption: Caption, offsets: Sequence[tuple[int, int]]) -> Span:
    start, stop = _characters(caption)
    positions = [
        position
        for position, (first, end) in enumerate(offsets)
        if first < stop and end > start and end > first
    ]
    if not positions:
        raise PlanError(f"subject {caption.subject!r} has no token in {caption.caption!r}")
    return Span(positions[0], positions[-1] + 1)


def _characters(caption: Caption) -> tuple[int, int]:
    """Return the characters of the subject's first occurrence as whole words, else of any."""
    word = re.search(rf"(?<!\w){re.escape(caption.subject)}(?!\w)", caption.caption)
    start = word.start() if word else caption.caption.index(caption.subject)
    return start, start + len(caption.subject)
