"""The prompts of an edit: with a concept, with its replacement instead, and with kept names.

DiffQuickFix (Basu et al. 2024, section 5) fits its edit on the bare concept and on "A photo of ..",
"An image of .." and "A picture of ..". One word before the concept or a style after it moves the
keys, so each opening is also combined with modifiers and endings.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from engine.model.vocabulary import Phrasebook, _article, with_article
from schemas.caption import Caption
from schemas.concept import Concept, ConceptKind, same_text

STRIDE = 7
"""One of so many phrasings of an object is used, so that all openings, modifiers and endings take
turns, since it is not a factor of their number (40; 204 of emoji-sd)."""
NEUTRAL_NAMES = 8
"""Number of names whose mean serves as a neutral word where the model knows none."""


class Saying(Caption):
    """A caption with its subject at a known place; the subject's words may occur elsewhere too."""

    start: int
    """The subject's first character."""

    @property
    def subject_characters(self) -> tuple[int, int]:
        """Characters of the subject, whose words may occur elsewhere too."""
        return self.start, self.start + len(self.subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPair:
    """The same prompt with the concept and with its replacement; each knows its subject."""

    source: Caption
    replacement: Caption
    weight: float = 1.0
    """Weight of the pair: the prompts of a concept share the concept's weight."""


def templates(text: str, *, kind: ConceptKind, book: Phrasebook) -> list[str]:
    """Return what can follow an opening, with `{}` where `text` is said; as many for any text."""
    if kind is ConceptKind.OBJECT:
        varied = itertools.product(book.modifiers, book.endings)
        return ["{}", *(_join(_article(b or text), b, "{}", end) for b, end in varied)]
    if kind in (ConceptKind.PERSON, ConceptKind.FACT):
        return [_join("{}", end) for end in book.endings]
    if kind is ConceptKind.STYLE:
        return [f"{carrier} in the style of {{}}" for carrier in book.carriers]
    if kind is ConceptKind.COLOR:
        return [f"{_article(text)} {{}} {c.partition(' ')[2]}" for c in book.carriers]
    return [f"{carrier} {{}}" for carrier in book.carriers]


def prompts(
    text: str, *, kind: ConceptKind, book: Phrasebook, own: Sequence[str] = ()
) -> list[Caption]:
    """Return the captions that say `text`; those of two texts of one kind align.

    They follow the `own` templates where given, and else those of the kind.
    """
    phrasings = own or [
        _join(opening, template)
        for opening in book.openings
        for template in templates(text, kind=kind, book=book)
    ]
    return [
        Saying(
            caption=template.replace("{}", text),
            subject=text,
            attribute=kind.value,
            start=template.index("{}"),
        )
        for template in phrasings
    ]


def prompt_pairs(concepts: Sequence[Concept], *, book: Phrasebook) -> list[PromptPair]:
    """Return the prompts of concepts, each with that of its replacement, in the concepts' order.

    Where the model knows no neutral word a concept without a replacement meets another kept name in
    each prompt: the fit to all of them is their mean.
    """
    kept = {kind: _spread(kept_names(concepts, kind=kind, book=book)) for kind in ConceptKind}
    return [
        pair
        for concept in concepts
        for pair in _pairs(concept, () if concept.replacement else kept[concept.kind], book=book)
    ]


def _pairs(concept: Concept, names: Sequence[str], *, book: Phrasebook) -> list[PromptPair]:
    replacements = names if names and not book.has_neutral_words else (concept.replacement_text,)
    source, *facing = (_ways(text, concept, book=book) for text in (concept.concept, *replacements))
    share = concept.weight / len(source)
    return [
        PromptPair(source=caption, replacement=facing[n % len(facing)][n], weight=share)
        for n, caption in enumerate(source)
    ]


def _ways(text: str, concept: Concept, *, book: Phrasebook) -> list[Caption]:
    captions = prompts(text, kind=concept.kind, book=book, own=concept.prompts)
    return captions[:: 1 if concept.prompts else _stride(concept.kind)]


def _stride(kind: ConceptKind) -> int:
    return STRIDE if kind is ConceptKind.OBJECT else 1


def _spread(names: Sequence[str]) -> list[str]:
    """Return NEUTRAL_NAMES names, evenly spread."""
    count = min(NEUTRAL_NAMES, len(names))
    return [names[n * len(names) // count] for n in range(count)]


def plain_phrase(text: str, *, kind: ConceptKind, book: Phrasebook) -> str:
    """Return the plainest phrase that says `text`: "a cat", "a house in the style of Monet"."""
    if kind is ConceptKind.OBJECT:
        return with_article(text)
    return templates(text, kind=kind, book=book)[0].replace("{}", text)


def kept_names(concepts: Sequence[Concept], *, kind: ConceptKind, book: Phrasebook) -> list[str]:
    """Return the phrasebook's objects or styles that no concept names, and nothing of another
    kind."""
    names = {ConceptKind.OBJECT: book.objects, ConceptKind.STYLE: book.styles}.get(kind, ())
    return [n for n in names if not any(same_text(n, c.concept) for c in concepts)]


def general_captions(*, book: Phrasebook) -> list[Caption]:
    """Return captions of every object and style of the phrasebook, in many phrasings."""
    return [
        caption
        for kind, names in ((ConceptKind.OBJECT, book.objects), (ConceptKind.STYLE, book.styles))
        for name in names
        for caption in prompts(name, kind=kind, book=book)[:: _stride(kind)]
    ]


def split_by_mention(
    captions: Sequence[Caption], concepts: Sequence[Concept]
) -> tuple[list[Caption], list[Caption]]:
    """Return the captions without a concept, whose images should not change, and those with one.

    A concept counts anywhere in a caption: a style also as the ending of an object's caption.
    """
    spoken = [f" {concept.concept.casefold()} " for concept in concepts]
    kept, mentioning = [], []
    for caption in captions:
        text = f" {caption.caption.casefold()} "
        (mentioning if any(words in text for words in spoken) else kept).append(caption)
    return kept, mentioning


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)
