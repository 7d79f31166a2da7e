"""Where a caption's subject is among its tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from schemas.caption import Caption
from schemas.errors import PlanError
from schemas.intervention import TokenRole


@dataclass(frozen=True, slots=True)
class Span:
    """The subject's token positions, start .. stop - 1 of a padded caption."""

    start: int
    stop: int
    eos: int
    """Position of the end-of-text token; all after it is padding."""
    words: int = 1
    """Position of the caption's first token: CLIP has a start token before it, T5 has none."""

    @property
    def last(self) -> int:
        """Position of the last token: where the paper finds the causal state."""
        return self.stop - 1

    def positions(self, role: TokenRole, length: int) -> list[tuple[int, ...]]:
        """Return the positions of a role among `length`, one group for each trial."""
        groups = {
            TokenRole.LAST_SUBJECT: [(self.last,)],
            TokenRole.FIRST_SUBJECT: [(self.start,)],
            TokenRole.SUBJECT: [tuple(range(self.start, self.stop))],
            TokenRole.EOS: [(self.eos,)],
            TokenRole.PADS: [tuple(range(self.eos + 1, length))],
            TokenRole.ALL: [tuple(range(length))],
            TokenRole.WORDS: [(p,) for p in range(self.words, self.eos + 1)],
            TokenRole.EACH: [(p,) for p in range(length)],
        }[role]
        return [group for group in groups if group]


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
    # Padded here: the tokenizer would make a Python list of every pad and its offsets.
    encoded = tokenizer([caption.caption for caption in captions], return_offsets_mapping=True)
    ids_NL = torch.full((len(captions), limit), tokenizer.pad_token_id)
    spans = []
    for row_L, caption, ids, offsets in zip(
        ids_NL, captions, encoded.input_ids, encoded.offset_mapping, strict=True
    ):
        if len(ids) > limit:
            raise PlanError(
                f"caption {caption.caption!r} has {len(ids)} tokens, the model's limit is {limit}: "
                "shorten it"
            )
        row_L[: len(ids)] = torch.tensor(ids)
        spans.append(_span(caption, offsets, eos=len(ids) - 1))
    return ids_NL, spans


def _span(caption: Caption, offsets: Sequence[tuple[int, int]], *, eos: int) -> Span:
    start, stop = caption.subject_characters
    words = [position for position, (first, end) in enumerate(offsets) if end > first]
    subject = [p for p in words if offsets[p][0] < stop and offsets[p][1] > start]
    if not subject:
        raise PlanError(f"subject {caption.subject!r} has no token in {caption.caption!r}")
    return Span(subject[0], subject[-1] + 1, eos, words[0])
