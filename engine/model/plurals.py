"""The plural of an English noun phrase, by spelling and a list of irregular nouns."""

import re

IRREGULAR = {
    "person": "people", "man": "men", "woman": "women", "child": "children", "mouse": "mice",
    "goose": "geese", "tooth": "teeth", "foot": "feet", "ox": "oxen", "leaf": "leaves",
    "wolf": "wolves", "knife": "knives", "loaf": "loaves", "shelf": "shelves", "calf": "calves",
    "scarf": "scarves", "half": "halves", "wife": "wives", "elf": "elves", "thief": "thieves",
    "bus": "buses", "cactus": "cacti", "potato": "potatoes", "tomato": "tomatoes",
    "hero": "heroes", "mango": "mangoes", "volcano": "volcanoes", "quiz": "quizzes",
}  # fmt: skip
UNCHANGED = frozenset(
    ("sheep", "deer", "fish", "salmon", "trout", "bison", "moose", "aircraft", "spacecraft",
     "broccoli", "furniture", "luggage", "rice", "bread", "people", "men", "women", "children",
     "mice", "geese", "teeth", "feet")
)  # fmt: skip
"""Nouns whose plural is the same, that have none, or that are plurals already."""
COMPOUNDS = re.compile(r"(men|women|mice|teeth|people)$")
"""Ends of words that are plurals already."""


def plural(phrase: str) -> str:
    """Return a noun phrase's plural: "hot dogs", "bags of chips"; a plural is returned unchanged.

    The noun is the last word before the first "of", "with", "in" or "on"; an article is dropped.
    """
    phrase = re.sub(r"^(a|an)\s+", "", phrase, flags=re.IGNORECASE)
    head = re.match(r"(.+?)(\s+(?:of|with|in|on)\s.*)?$", phrase)
    if head is None:
        return phrase
    before, gap, noun = head[1].rpartition(" ")
    return f"{before}{gap}{_plural_word(noun)}{head[2] or ''}"


def _plural_word(noun: str) -> str:
    lower = noun.lower()
    if not noun[-1:].isalpha() or lower in UNCHANGED or COMPOUNDS.search(lower):
        return noun
    for single, many in IRREGULAR.items():
        # "snowman" as "man", but not "human" or "german".
        if lower == single or (single in ("man", "woman", "child") and _is_compound(lower, single)):
            return noun[: len(noun) - len(single)] + _cased(noun, many)
    if lower.endswith("s") and not lower.endswith(("ss", "us", "is")):
        return noun
    if lower.endswith("sis"):
        return f"{noun[:-2]}es"
    if lower.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if re.search(r"[^aeiou]y$", lower):
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def _is_compound(word: str, noun: str) -> bool:
    return word.endswith(noun) and word not in ("human", "german", "roman", "ottoman", "shaman")


def _cased(noun: str, many: str) -> str:
    return many.capitalize() if noun[:1].isupper() and noun.lower() in IRREGULAR else many
