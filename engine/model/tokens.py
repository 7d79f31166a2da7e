"""Where a caption's subject is among its tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from schemas.caption import Caption, Occurrence
from schemas.errors import PlanError
from schemas.intervention import TokenRole


@dataclass(frozen=True, slots=True)
class Span:
    """The token positions of a subject's last mention, start .. stop - 1 of a padded caption."""

    start: int
    stop: int
    eos: int
    """Position of the text's last token, in most the end-of-text token; all after it is padding."""
    words: int = 1
    """Position of the caption's first token: CLIP has a start token before it, T5 has none."""
    before: tuple[tuple[int, int], ...] = ()
    """Start and stop of earlier mentions of the subject that are corrupted too."""
    first: int = 0
    """Position of the text's first token; all before it is padding, where a tokenizer pads so."""

    @property
    def last(self) -> int:
        """Position of the last token: where the paper finds the causal state."""
        return self.stop - 1

    @property
    def subject(self) -> tuple[int, ...]:
        """Positions of all mentions."""
        mentions = (*self.before, (self.start, self.stop))
        return tuple(sorted({p for start, stop in mentions for p in range(start, stop)}))

    def pads(self, length: int) -> tuple[int, ...]:
        """Return the positions of padding among `length`."""
        return (*range(self.first), *range(self.eos + 1, length))

    def positions(self, role: TokenRole, length: int) -> list[tuple[int, ...]]:
        """Return the positions of a role among `length`, one group for each trial."""
        groups = {
            TokenRole.LAST_SUBJECT: [(self.last,)],
            TokenRole.FIRST_SUBJECT: [(self.subject[0],)],
            TokenRole.SUBJECT: [self.subject],
            TokenRole.EOS: [(self.eos,)],
            TokenRole.PADS: [self.pads(length)],
            TokenRole.ALL: [tuple(range(length))],
            TokenRole.WORDS: [(p,) for p in range(self.words, self.eos + 1)],
            TokenRole.EACH: [(p,) for p in range(length)],
        }[role]
        return [group for group in groups if group]


class TemplateTokenizer:
    """A tokenizer that puts a text before every caption, as the pipeline of the model does.

    Offsets are those of the caption as written: tokens of the template have none.
    """

    def __init__(self, tokenizer: Any, *, before: str, length: int, after: str = "") -> None:
        """Put `before` in front of captions, which are lowered and stripped.

        `length` bounds the positions of template and caption together.
        """
        self._tokenizer, self._before, self._after = tokenizer, before, after
        self.model_max_length = length

    def __call__(self, captions: str | Sequence[str], **options: Any) -> Any:
        """Return the encoding of template and caption, for one caption or for each of several."""
        if isinstance(captions, str):
            return self._tokenizer(self._whole(captions), **options)
        encoded = self._tokenizer([self._whole(caption) for caption in captions], **options)
        if options.get("return_offsets_mapping"):
            encoded["offset_mapping"] = [
                self._moved(offsets, caption)
                for offsets, caption in zip(encoded["offset_mapping"], captions, strict=True)
            ]
        return encoded

    def _whole(self, caption: str) -> str:
        """Return template and caption; PlanError if the caption holds the padding token."""
        if self._tokenizer.pad_token in caption.lower():
            raise PlanError(
                f"text {caption!r} has {self._tokenizer.pad_token!r}, which fills up short texts: "
                "leave it out"
            )
        return self._before + caption.lower().strip()

    def without_template(self, length: int) -> "TemplateTokenizer":
        """Return the tokenizer of captions alone, of at most that many positions."""
        return TemplateTokenizer(self._tokenizer, before="", length=length)

    def _moved(self, offsets: Sequence[tuple[int, int]], caption: str) -> list[tuple[int, int]]:
        """Return each token's characters in the caption, or (0, 0) where it has none."""
        whole = self._whole(caption)
        begin, stop = len(self._before), len(whole) - len(self._after)
        moved = self._blanks(caption) - begin
        found = [
            (max(begin, first) + moved, min(end, stop) + moved)
            if end > begin and first < stop
            else (0, 0)
            for first, end in offsets
        ]
        if len(caption.lower()) == len(caption) or caption.strip() in whole:
            return found
        # The place of each lowered letter: a Turkish capital "\u0130" becomes two.
        places = [n for n, letter in enumerate(caption) for _ in letter.lower()]
        return [
            (places[first], places[end - 1] + 1) if end > first else (0, 0) for first, end in found
        ]

    def _blanks(self, caption: str) -> int:
        """Return how many of the caption's first characters are left out."""
        return len(caption) - len(caption.lstrip())

    def __len__(self) -> int:
        """Return the size of the vocabulary."""
        return len(self._tokenizer)

    def __getattr__(self, name: str) -> Any:
        """Return the wrapped tokenizer's attribute of that name."""
        if name.startswith("_"):  # copies ask for these before there is a tokenizer
            raise AttributeError(name)
        return getattr(self._tokenizer, name)


def tokenize(tokenizer: Any, captions: Sequence[str]) -> torch.Tensor:
    """Return token ids_BL padded to the tokenizer's limit L, as diffusers' pipelines pad."""
    refuse_several_vectors(tokenizer, captions)
    return tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def find_subject(tokenizer: Any, caption: Caption, occurrence: Occurrence | None = None) -> Span:
    """Return the span of the subject's tokens, found by character offsets.

    Of the first mention, or of those that `occurrence` says. PlanError: the caption has more tokens
    than the tokenizer's limit, or no token of the caption lies in the subject.
    """
    return find_subjects(tokenizer, [caption], occurrence)[1][0]


def find_subjects(
    tokenizer: Any, captions: Sequence[Caption], occurrence: Occurrence | None = None
) -> tuple[torch.Tensor, list[Span]]:
    """Return `tokenize`'s ids_NL and `find_subject`'s span of each caption, in one pass."""
    limit = tokenizer.model_max_length
    texts = [caption.caption for caption in captions]
    refuse_several_vectors(tokenizer, texts)
    # Padded here: the tokenizer would make a Python list of every pad and its offsets.
    encoded = tokenizer(texts, return_offsets_mapping=True, verbose=False)
    ids_NL = np.full((len(captions), limit), tokenizer.pad_token_id)
    spans = []
    for row_L, caption, ids, offsets in zip(
        ids_NL, captions, encoded.input_ids, encoded.offset_mapping, strict=True
    ):
        if len(ids) > limit:
            raise _too_long("caption", caption.caption, len(ids), limit)
        first = limit - len(ids) if tokenizer.padding_side == "left" else 0
        row_L[first : first + len(ids)] = ids
        mentions = [caption.subject_characters]
        if occurrence is not None:
            mentions = [*caption.mentions(occurrence)]
        spans.append(_span(caption, mentions, offsets, first=first))
    return torch.from_numpy(ids_NL), spans


def check_lengths(tokenizer: Any, texts: Sequence[str], what: str) -> None:
    """Raise PlanError if a text has more tokens than the tokenizer's limit: it would be cut."""
    refuse_several_vectors(tokenizer, texts)
    limit = tokenizer.model_max_length
    for text, count in zip(texts, count_tokens(tokenizer, texts), strict=True):
        if count > limit:
            raise _too_long(what, text, count, limit)


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Return how many tokens each text has, also beyond the tokenizer's limit."""
    return [len(ids) for ids in tokenizer(list(texts), verbose=False).input_ids] if texts else []


def refuse_several_vectors(tokenizer: Any, texts: Sequence[str]) -> None:
    """Raise PlanError if a text has a learned token of several vectors (textual inversion).

    A pipeline writes `<toy> <toy>_1` for `<toy>` where the tokenizer has both; dqf takes texts as
    they are written.
    """
    added = tokenizer.added_tokens_encoder
    for token in [token for token in added if f"{token}_1" in added]:
        count = next(n for n in range(1, len(added) + 1) if f"{token}_{n}" not in added)
        whole = " ".join([token, *(f"{token}_{n}" for n in range(1, count))])
        for text in texts:
            if token in text.replace(whole, ""):
                raise PlanError(f"{token!r} in {text!r} has {count} vectors: write {whole!r}")


def _too_long(what: str, text: str, count: int, limit: int) -> PlanError:
    return PlanError(
        f"{what} {text!r} has {count} tokens, the model's limit is {limit}: shorten it"
    )


def _span(
    caption: Caption,
    mentions: Sequence[tuple[int, int]],
    offsets: Sequence[tuple[int, int]],
    *,
    first: int,
) -> Span:
    """Return the span of mentions at a text's offsets, whose first token is at position `first`."""
    words = [position for position, (begin, end) in enumerate(offsets) if end > begin]
    found = []
    for start, stop in mentions:
        subject = [p for p in words if offsets[p][0] < stop and offsets[p][1] > start]
        if not subject:
            raise PlanError(f"subject {caption.subject!r} has no token in {caption.caption!r}")
        found.append((first + subject[0], first + subject[-1] + 1))
    *before, (start, stop) = found
    eos, word = first + len(offsets) - 1, first + words[0]
    return Span(start, stop, eos, word, tuple(before), first)
