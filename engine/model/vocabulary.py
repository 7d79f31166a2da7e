"""The words that a model's prompts are made of: openings, names of concepts, articles."""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from engine.files import read_json_file
from schemas.concept import (
    MAX_CHARACTERS,
    NEUTRAL_REPLACEMENTS,
    PLACE,
    ConceptKind,
    named,
    plain_text,
)
from schemas.documents import parsed
from schemas.errors import ModelUnavailable

OPENINGS = ("", "a photo of", "an image of", "a picture of")
"""Openings of a prompt; the empty one gives the bare prompt."""
OBJECTS = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear",
    "zebra", "giraffe", "backpack", "umbrella", "handbag", "suitcase", "kite", "skateboard",
    "surfboard", "bottle", "wine glass", "cup", "fork", "bowl", "banana", "apple", "sandwich",
    "orange", "carrot", "hot dog", "pizza", "cake", "chair", "couch", "potted plant", "bed",
    "toilet", "laptop", "keyboard", "microwave", "oven", "refrigerator", "book", "clock", "vase",
    "teddy bear", "toothbrush", "house", "flower", "mountain", "castle", "woman", "man", "child",
)  # fmt: skip
"""Mostly the classes of COCO (Lin et al. 2014)."""
COMPOUNDS = (
    "bee eater", "Dutch oven", "electric ray", "freight car", "guinea pig", "horse chestnut",
    "hot pot", "lady's slipper", "piggy bank", "punching bag", "railroad car", "red panda",
    "rose hip", "sea anemone", "sea cucumber", "sea lion", "sea urchin", "sleeping bag",
    "space bar",
)  # fmt: skip
"""Compounds that contain another object's name and are not a kind of it: a guinea pig is not a pig.

Chosen from the class names of ImageNet as OpenAI's CLIP writes them (MIT license, also in
`open_clip.zero_shot_metadata`); `OBJECTS` has others, as "hot dog". A kind of its last word, as
"polar bear", is not among them: it goes with "bear".
"""
MOST_OBJECTS, MOST_VARIED = 2000, 200
"""Most objects of a vocabulary, and styles or colors, of which an edit combines each with each."""
STYLES = ("Van Gogh", "Picasso", "Monet", "Rembrandt", "Hokusai", "a watercolor", "pixel art")


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrasebook:
    """The words that prompts are built from; a small model has few of its own."""

    openings: tuple[str, ...] = OPENINGS
    modifiers: tuple[str, ...] = ("", "red", "small")
    """Words that may stand between the article and an object."""
    endings: tuple[str, ...] = ("", "in the style of Van Gogh", "on a table")
    """Words that may follow an object."""
    carriers: tuple[str, ...] = ("a house", "a flower", "a dog", "a boat", "a person")
    """Objects that show a style, a color or an action."""
    objects: tuple[str, ...] = OBJECTS
    """Objects to keep."""
    styles: tuple[str, ...] = STYLES
    """Styles to keep."""
    compounds: tuple[str, ...] = ()
    """Names that are kept where an edited concept is among their words."""
    neutral: frozenset[ConceptKind] = frozenset(ConceptKind)
    """Kinds of which the model knows the general word, such as "object" or "photo"."""


def _word(text: str) -> str:
    """Return a word that prompts may be made of."""
    if PLACE in text:
        raise ValueError(f"holds {PLACE}, the place of a name in a prompt")
    return named(text.strip())


def _once(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return words that are all different; ValueError: one would count twice."""
    seen = set[str]()
    for word in words:
        if plain_text(word) in seen:
            raise ValueError(f"{word!r} is listed twice")
        seen.add(plain_text(word))
    return words


Words = Annotated[
    tuple[Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(_word)], ...],
    AfterValidator(_once),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The words that a model was trained on, as `vocabulary.json` in its folder lists them."""

    objects: Annotated[Words, Field(min_length=1, max_length=MOST_OBJECTS)]
    styles: Annotated[Words, Field(max_length=MOST_VARIED)]
    colors: Annotated[Words, Field(max_length=MOST_VARIED)]
    generic: Annotated[Words, Field(max_length=MOST_VARIED)] = ()
    """Words that stand for any object, such as "something"; a model may know none."""
    actions: Annotated[Words, Field(max_length=MOST_VARIED)] = ()


def read_vocabulary(folder: Path) -> Vocabulary | None:
    """Return the words of the `vocabulary.json` in a model's folder; None if there is none.

    ModelUnavailable: it has not these lists, or is not a regular file.
    """
    path = folder / "vocabulary.json"
    if not os.path.lexists(path):
        return None
    document = read_json_file(path, error=ModelUnavailable)
    names = {field.name for field in fields(Vocabulary)}
    words = document if isinstance(document, dict) else {}
    lists = {name: value for name, value in words.items() if name in names}
    return parsed(Vocabulary, lists, str(path), error=ModelUnavailable)


def read_phrasebook(folder: Path) -> Phrasebook:
    """Return the words of the model's own `vocabulary.json`, or the general ones if it has none."""
    words = read_vocabulary(folder)
    if words is None:
        return Phrasebook(compounds=COMPOUNDS)
    colors = [word for word in words.colors if word != "natural"]
    return Phrasebook(
        openings=OPENINGS,
        modifiers=(
            "",
            *colors,
            *(f"upside down{c}" for c in ("", *(f" {c}" for c in colors[::3]))),
        ),
        neutral=_neutral(words),
        endings=("", *(f"in the style of {style}" for style in words.styles)),
        carriers=tuple(with_article(name) for name in words.objects[::6]),
        objects=tuple(words.objects),
        styles=tuple(words.styles),
    )


def _neutral(words: Vocabulary) -> frozenset[ConceptKind]:
    """Return the kinds whose general word is among the vocabulary's."""
    known = {
        ConceptKind.OBJECT: words.generic,
        ConceptKind.STYLE: words.styles,
        ConceptKind.COLOR: words.colors,
        ConceptKind.ACTION: words.actions,
    }
    return frozenset(kind for kind, listed in known.items() if NEUTRAL_REPLACEMENTS[kind] in listed)


def with_article(words: str) -> str:
    """Return the words after "a" or "an", by spelling: "an owl", "a unicorn"."""
    return f"{_article(words)} {words}"


def _article(words: str) -> str:
    first = words.split()[0].lower()
    vowel = first[0] in "aeio" or (first[0] == "u" and not first.startswith(("uni", "use", "ut")))
    return "an" if vowel else "a"
