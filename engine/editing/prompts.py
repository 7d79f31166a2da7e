"""The prompts of an edit: with a concept, with its replacement instead, and with kept names.

DiffQuickFix (Basu et al. 2024, section 5) fits its edit on the bare concept and on "A photo of ..",
"An image of .." and "A picture of ..". One word before the concept or a style after it moves the
keys, so each opening is also combined with modifiers and endings.
"""

import itertools
from collections.abc import Sequence

from engine.editing.forms import Form, forms, written_forms
from engine.editing.names import KnownNames
from engine.model.vocabulary import Phrasebook, _article, with_article
from schemas.caption import Caption
from schemas.concept import Concept, ConceptKind, same_text

STRIDE = 7
"""One of so many phrasings of an object is used, so that all openings, modifiers and endings take
turns, since it is not a factor of their number (40; 204 of emoji-sd)."""


COMPANION_LETTERS = 6
"""Most letters of the second object in a caption."""


class Saying(Caption):
    """A caption with its subject at a known place; the subject's words may occur elsewhere too."""

    start: int
    """The subject's first character."""

    @property
    def subject_characters(self) -> tuple[int, int]:
        """Characters of the subject, whose words may occur elsewhere too."""
        return self.start, self.start + len(self.subject)


def templates(text: str, *, kind: ConceptKind, book: Phrasebook) -> list[str]:
    """Return the ends of prompts after an opening, with `{}` for `text`; as many for any text."""
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
) -> list[Saying]:
    """Return the captions that say `text`; those of two texts of one kind align.

    They follow the `own` templates where given, and else those of the kind.
    """
    phrasings = own or [
        _join(opening, template)
        for opening in book.openings
        for template in templates(text, kind=kind, book=book)
    ]
    return [saying(template, text, kind) for template in phrasings]


def saying(template: str, text: str, kind: ConceptKind) -> Saying:
    """Return the caption of a template with `text` in the place of its `{}`."""
    return Saying(
        caption=template.replace("{}", text),
        subject=text,
        attribute=kind.value,
        start=template.index("{}"),
    )


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


def known_names(
    concepts: Sequence[Concept], *, book: Phrasebook, kept: Sequence[Concept] = ()
) -> KnownNames:
    """Return the names that a text may say: concepts, replacements, the phrasebook's and `kept`.

    Of the phrasebook's compounds those that have a concept among their words.
    """
    return KnownNames(
        [
            *(concept.concept for concept in concepts),
            *(concept.concept for concept in kept),
            *(concept.replacement for concept in concepts if concept.replacement),
            *book.objects,
            *book.styles,
            *compounds_of(concepts, book=book),
        ],
        forms=written_forms(concepts),
    )


def compounds_of(concepts: Sequence[Concept], *, book: Phrasebook) -> list[str]:
    """Return the phrasebook's compounds with a concept's name among their words, which no concept
    names: "guinea pig" where "pig" is edited."""
    edited = KnownNames([concept.concept for concept in concepts])
    return [name for name in book.compounds if name not in edited and any(edited.within(name))]


def general_captions(*, book: Phrasebook) -> list[Saying]:
    """Return captions of every object and style of the phrasebook, in many phrasings.

    Among them are the names' other forms and prompts of two objects.
    """
    return [
        caption
        for kind, names in ((ConceptKind.OBJECT, book.objects), (ConceptKind.STYLE, book.styles))
        for number, name in enumerate(names)
        for caption in _captions_of(name, number, kind=kind, book=book)
    ]


def further_captions(
    concepts: Sequence[Concept], *, book: Phrasebook, kept: Sequence[Concept] = ()
) -> list[Saying]:
    """Return captions of names that are kept besides those of `general_captions`.

    These are `kept`, by their own templates where they have some, and `compounds_of` the concepts.
    """
    named = [*kept, *(Concept(concept=name) for name in compounds_of(concepts, book=book))]
    return [
        caption
        for number, name in enumerate(named)
        for caption in (
            prompts(name.concept, kind=name.kind, book=book, own=name.prompts)
            if name.prompts
            else _captions_of(name.concept, number, kind=name.kind, book=book)
        )
    ]


def _captions_of(name: str, number: int, *, kind: ConceptKind, book: Phrasebook) -> list[Saying]:
    """Return captions of one name in many phrasings, its other forms, and two objects."""
    return [
        *prompts(name, kind=kind, book=book)[:: stride(kind)],
        *form_captions(list(forms(name, kind=kind).values()), kind=kind, book=book),
        *companion_captions(name, number, kind=kind, companions=book.objects, book=book),
    ]


def form_captions(written: Sequence[Form], *, kind: ConceptKind, book: Phrasebook) -> list[Saying]:
    """Return the captions that say a name in other forms, after every second opening."""
    return [
        saying(_join(opening, form.template), form.text, kind)
        for opening in book.openings[::2]
        for form in written
    ]


def companion_captions(
    name: str,
    number: int,
    *,
    kind: ConceptKind,
    companions: Sequence[str],
    book: Phrasebook,
) -> list[Saying]:
    """Return captions of an object with another one, before and after it; `number` chooses them.

    Nothing for other kinds. The others are short words, so that the captions are not long.
    """
    short = [other for other in companions if other.isalpha() and len(other) <= COMPANION_LETTERS]
    others = [other for other in short if not same_text(other, name)]
    if kind is not ConceptKind.OBJECT or not others:
        return []
    first, second = (with_article(others[(number * 7 + n) % len(others)]) for n in (1, 4))
    article = _article(name)
    opening = book.openings[number % len(book.openings)]
    return [
        saying(_join(opening, article, "{}", f"and {first}"), name, kind),
        saying(_join(opening, f"{second} and {article}", "{}"), name, kind),
    ]


def split_by_mention(
    captions: Sequence[Caption], concepts: Sequence[Concept], *, known: KnownNames
) -> tuple[list[Caption], list[Caption]]:
    """Return the captions without a concept, whose images should not change, and those with one.

    A concept counts anywhere in a caption, a style also as the ending of an object's; but not
    within a longer name of `known`, as "dog" in "hot dog".
    """
    edited = KnownNames([concept.concept for concept in concepts])
    kept, mentioning = [], []
    for caption in captions:
        (mentioning if known.says_any(caption.caption, edited) else kept).append(caption)
    return kept, mentioning


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def stride(kind: ConceptKind) -> int:
    """Return the step through the phrasings of a kind: one of so many is used."""
    return STRIDE if kind is ConceptKind.OBJECT else 1
