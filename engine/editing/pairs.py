"""The pairs of prompts that an edit is fitted on: with a concept, and with its replacement instead.

The replacement's prompt says no concept of the batch: an object's pair that ends in an edited style
on both sides would keep that style (10 objects with 2 styles in one file left the styles in 10 of
12 images).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.editing.forms import ARTICLES, facing_forms
from engine.editing.names import KnownNames, Mention, words_of
from engine.editing.prompts import (
    Saying,
    companion_captions,
    form_captions,
    kept_names,
    known_names,
    prompts,
    stride,
)
from engine.model.plurals import plural
from engine.model.vocabulary import Phrasebook, _article
from schemas.caption import Caption
from schemas.concept import Concept, ConceptKind, plain_text

NEUTRAL_NAMES = 8
"""Number of names whose mean serves as a neutral word where the model knows none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPair:
    """The same prompt with the concept and with its replacement; each knows its subject."""

    source: Caption
    replacement: Caption
    weight: float = 1.0
    """Weight of the pair: the prompts of a concept share the concept's weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """The concepts that are edited together, with the replacement of each."""

    book: Phrasebook
    known: KnownNames
    facing: Mapping[str, Sequence[str]]
    """The texts that take a concept's place, in turn, by the concept's name."""
    companions: Mapping[str, str]
    """Objects that stay as they are, by their plain text."""

    def without_concepts(self, caption: Saying, concept: str, turn: int) -> Saying:
        """Return the prompt of a concept's replacement with every other concept replaced too."""
        text, (start, stop) = caption.caption, caption.subject_characters
        for mention in reversed(self.known.said(text)):
            is_subject = mention.start < stop and mention.stop > start
            if mention.name not in self.facing or mention.name == concept or is_subject:
                continue
            names = self.facing[mention.name]
            replaced = _in_place(text, mention, names[turn % len(names)])
            start += len(replaced) - len(text) if mention.start < start else 0
            text = replaced
            stop = start + len(caption.subject)
        return caption.model_copy(update={"caption": text, "start": start})

    def is_read_as_a_longer_name(self, caption: Saying) -> bool:
        """Return whether the subject is part of a longer known name, as "panda" in "red panda"."""
        start, stop = caption.subject_characters
        return any(
            (mention.start < start and mention.stop > start)
            or (mention.start < stop and mention.stop > stop)
            for mention in self.known.said(caption.caption)
        )


def _in_place(text: str, mention: Mention, name: str) -> str:
    """Return a text with a name in a mention's place, in its number and after the right article."""
    before, said, after = (
        text[: mention.start], text[mention.start : mention.stop], text[mention.stop :],
    )  # fmt: skip
    if words_of(said) != words_of(mention.name) and words_of(said) == words_of(
        plural(mention.name)
    ):
        name = plural(name)
    if before.endswith((" a ", " an ")) or before in ("a ", "an "):
        before = before.removesuffix("an ").removesuffix("a ")
        is_phrase = name.split()[0].lower() in ARTICLES
        name = name if is_phrase else f"{_article(name)} {name}"
    return f"{before}{name}{after}"


def prompt_pairs(
    concepts: Sequence[Concept],
    *,
    book: Phrasebook,
    forms: bool = True,
    kept: Sequence[Concept] = (),
) -> list[PromptPair]:
    """Return the prompts of concepts, each with that of its replacement, in the concepts' order.

    `forms`: the concepts' other forms are among them; `kept` are names besides the phrasebook's.
    Where the model knows no neutral word a concept without a replacement meets another kept name in
    each prompt: the fit to all of them is their mean.
    """
    names = {kind: _spread(kept_names(concepts, kind=kind, book=book)) for kind in ConceptKind}
    batch = _Batch(
        book=book,
        known=known_names(concepts, book=book, kept=kept),
        facing={c.concept: _facing(c, names[c.kind], book) for c in concepts},
        companions={
            plain_text(name): name
            for name in kept_names(concepts, kind=ConceptKind.OBJECT, book=book)
        },
    )
    return [
        pair
        for number, concept in enumerate(concepts)
        for pair in _pairs(concept, number, batch=batch, forms=forms)
    ]


def _facing(concept: Concept, names: Sequence[str], book: Phrasebook) -> Sequence[str]:
    if concept.replacement or concept.kind in book.neutral or not names:
        return (concept.replacement_text,)
    return names


def _pairs(concept: Concept, number: int, *, batch: _Batch, forms: bool) -> list[PromptPair]:
    facing = batch.facing[concept.concept]
    faced = {plain_text(name) for name in facing}
    others = [name for plain, name in batch.companions.items() if plain not in faced]
    sources, *ways = (
        _ways(text, concept, number, book=batch.book, companions=others)
        for text in (concept.concept, *facing)
    )
    both = [(source, ways[n % len(ways)][n]) for n, source in enumerate(sources)]
    # A concept with templates of its own has no others unless it lists forms.
    if forms and (concept.forms is not None or not concept.prompts):
        both += _form_pairs(concept, facing, batch.book)
    clear = [pair for pair in both if not batch.is_read_as_a_longer_name(pair[0])] or both
    share = concept.weight / len(clear)
    return [
        PromptPair(
            source=source,
            replacement=batch.without_concepts(replacement, concept.concept, n),
            weight=share,
        )
        for n, (source, replacement) in enumerate(clear)
    ]


def _form_pairs(
    concept: Concept, facing: Sequence[str], book: Phrasebook
) -> list[tuple[Saying, Saying]]:
    """Return prompts of the concept's forms with those of its replacements in turn."""
    pairs = []
    for turn, name in enumerate(facing):
        written = facing_forms(concept, name)[turn :: len(facing)]
        said, faced = (
            form_captions([form[side] for form in written], kind=concept.kind, book=book)
            for side in (0, 1)
        )
        pairs += zip(said, faced, strict=True)
    return pairs


def _ways(
    text: str, concept: Concept, number: int, *, book: Phrasebook, companions: Sequence[str]
) -> list[Saying]:
    """Return the captions of a concept's or a replacement's text; those of two texts align."""
    kind = concept.kind
    if concept.prompts:
        return prompts(text, kind=kind, book=book, own=concept.prompts)
    return [
        *prompts(text, kind=kind, book=book)[:: stride(kind)],
        *companion_captions(text, number, kind=kind, companions=companions, book=book),
    ]


def _spread(names: Sequence[str]) -> list[str]:
    """Return NEUTRAL_NAMES names, evenly spread."""
    count = min(NEUTRAL_NAMES, len(names))
    return [names[n * len(names) // count] for n in range(count)]
