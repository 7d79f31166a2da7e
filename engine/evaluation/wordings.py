"""The wordings of evaluation prompts, and general prompts that name no concept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TypeVar

from engine.editing.forms import capital, written_forms
from engine.editing.names import KnownNames
from engine.editing.prompts import known_names
from engine.model.plurals import plural
from engine.model.vocabulary import read_phrasebook, read_vocabulary, with_article
from schemas.concept import Concept, ConceptKind, plain_text, same_text
from schemas.evaluation import Group

T = TypeVar("T")
GENERAL_COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "black", "white")
GENERAL_CARRIERS = ("a cottage", "a lighthouse", "a tree", "a bridge", "a bowl of fruit")
"""Objects that styles, colors and actions are shown on; an edit is fitted on others."""
GENERAL_PROMPTS = (
    "a busy street market at noon", "a quiet lake under a starry sky", "sunlight in a dense forest",
    "the skyline of a modern city at dusk", "waves breaking on black rocks", "a snowy village lane",
    "a long road through the desert", "an old library full of dusty shelves", "a field of lavender",
    "a crowded railway platform in the rain", "a kitchen with copper pans", "a waterfall in autumn",
    "an astronaut floating above the earth", "children playing in a fountain", "a jazz band",
    "a bowl of ramen with a soft egg", "a workshop full of wooden tools", "a stormy sea",
    "a chess game in the park", "an empty theatre with red seats", "a harbour in the morning fog",
    "a marble statue in a garden", "neon signs in a narrow alley", "a knitted scarf and gloves",
    "a robot watering the garden", "a windmill by a canal", "a map on an oak desk",
    "a glass greenhouse full of ferns", "a night train on a viaduct", "fireworks over a river",
    "a potter shaping clay", "a rusty gate covered in ivy",
)  # fmt: skip
"""Prompts of all kinds for models without a vocabulary of their own."""
GENERAL_COUNT = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The names and wordings that prompts are built from, without concepts."""

    opening: str
    """Opening of a prompt; no edit is fitted on it."""
    templates: Mapping[Group, tuple[str, ...]]
    """Wordings of an object by efficacy group, `{article}` or `{name}` for it."""
    carriers: tuple[str, ...]
    """Names of objects that styles, colors and actions are shown on, with their article."""
    names: Mapping[ConceptKind, tuple[str, ...]]
    """Names that may be kept, by each kind that has a list."""
    general: tuple[str, ...]
    """Prompts of all sorts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The edited concepts, and all known names, of which the longest counts in a text."""

    edited: KnownNames
    known: KnownNames


def fill(template: str, name: str) -> str:
    """Return a prompt: the template with a name in its place, in the form that it asks for."""
    other = capital(name)
    return template.format(
        name=name,
        article=with_article(name),
        plural=plural(name),
        capital=other,
        capital_article=with_article(other),
    )


def choices(concepts: Sequence[Concept], words: Words) -> dict[ConceptKind, tuple[str, ...]]:
    """Return, by kind, the names that an image may be recognized as.

    These are the concepts, the replacements that were given and the names of the kind, without the
    neutral words that removed concepts become, which no prompt asks for.
    """
    kinds = [*dict.fromkeys([*(c.kind for c in concepts), *words.names])]
    return {
        kind: _distinct(
            [
                *(c.concept for c in concepts if c.kind is kind),
                *(c.replacement for c in concepts if c.kind is kind and c.replacement),
                *words.names.get(kind, ()),
            ]
        )
        for kind in kinds
    }


def read_words(folder: Path, concepts: Sequence[Concept]) -> Words:
    """Return the words of a model's own `vocabulary.json`, or the general ones if it has none."""
    book, names = read_phrasebook(folder), [concept.concept for concept in concepts]
    said = Said(
        edited=KnownNames(names, forms=written_forms(concepts)),
        known=known_names(concepts, book=book),
    )
    own = read_vocabulary(folder)
    colors = GENERAL_COLORS if own is None else [c for c in own.colors if c != "natural"]
    free = {
        ConceptKind.OBJECT: _without(book.objects, names),
        ConceptKind.STYLE: _without(book.styles, names),
        ConceptKind.COLOR: _without(colors, names),
    }
    return _general_words(free, said) if own is None else _vocabulary_words(free)


def with_kept(words: Words, kept: Sequence[str], kind: ConceptKind) -> Words:
    """Return the words with further names of a kind that may be kept."""
    own = words.names.get(kind, ())
    return replace(words, names={**words.names, kind: _distinct([*own, *kept])})


def _general_words(free: Mapping[ConceptKind, tuple[str, ...]], said: Said) -> Words:
    return Words(
        opening="a rendering of",
        templates={
            Group.CONCEPT: ("a rendering of {article}", "a close-up of {article}"),
            Group.PARAPHRASE: (
                "a black and white sketch of {article}",
                "a museum display about {article} in the evening light",
            ),
            Group.POSITION: (
                "on a wooden floor by the window, {article}",
                "a poster of {article} on a brick wall",
            ),
        },
        carriers=_unsaid(GENERAL_CARRIERS, said),
        names=free,
        general=_unsaid(GENERAL_PROMPTS, said),
    )


def _vocabulary_words(free: Mapping[ConceptKind, tuple[str, ...]]) -> Words:
    """Return wordings in the vocabulary's own words, combined as in no prompt of an edit.

    Edits are fitted on every other color and on "upside down", never on both together.
    """
    styles = [f"in the style of {escaped(style)}" for style in free[ConceptKind.STYLE]]
    colors = [escaped(color) for color in free[ConceptKind.COLOR][1::2]]
    turned = [
        f"an upside down {color} {{name}} {style}".strip()
        for color, style in zip(cycle(colors or ["plain"]), styles or [""], strict=False)
    ]
    # The book shows things on every sixth object, so their neighbors are unseen.
    carriers = tuple(with_article(name) for name in free[ConceptKind.OBJECT][1::6])
    return Words(
        opening="a drawing of",
        templates={
            Group.CONCEPT: ("a drawing of {article}",),
            Group.PARAPHRASE: (
                *(f"a drawing of {with_article(color)} {{name}}" for color in colors),
                *(f"a drawing of {{article}} {style}" for style in styles),
            ),
            Group.POSITION: tuple(f"a drawing of {noun}" for noun in turned),
        },
        carriers=carriers,
        names=free,
        general=_combinations(free),
    )


def _combinations(free: Mapping[ConceptKind, Sequence[str]]) -> tuple[str, ...]:
    """Return prompts of kept objects, each with another color, turn and style."""
    objects = spread(free[ConceptKind.OBJECT], GENERAL_COUNT)
    colors = ("", *free[ConceptKind.COLOR])
    endings = ("", *(f"in the style of {style}" for style in free[ConceptKind.STYLE]))
    texts = []
    for number, name in enumerate(objects):
        turn = "upside down" if number % 3 == 2 else ""
        noun = " ".join(w for w in (turn, colors[number % len(colors)], name) if w)
        ending = endings[number % len(endings)]
        texts.append(f"a drawing of {with_article(noun)} {ending}".strip())
    return tuple(texts)


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` items, evenly spread."""
    count = min(count, len(items))
    return [items[n * len(items) // count] for n in range(count)]


def turned(items: Sequence[str], by: int) -> tuple[str, ...]:
    """Return the items with the first `by` moved to the end."""
    by = by % len(items) if items else 0
    return (*items[by:], *items[:by])


def escaped(text: str) -> str:
    """Return a text with doubled braces, which `str.format` gives back unchanged."""
    return text.replace("{", "{{").replace("}", "}}")


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    by_text: dict[str, str] = {}
    for name in names:
        by_text.setdefault(plain_text(name), name)
    return tuple(by_text.values())


def _without(names: Sequence[str], said: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if not any(same_text(name, s) for s in said))


def _unsaid(texts: Sequence[str], said: Said) -> tuple[str, ...]:
    """Return the texts that say no edited concept."""
    return tuple(text for text in texts if not said.known.says_any(text, said.edited))
