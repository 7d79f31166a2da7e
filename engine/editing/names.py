"""The known names that a text says, singular or plural: of names that overlap, the longest.

"Two hot dogs" says "hot dog" and not "dog", if both are known.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from engine.model.plurals import plural
from schemas.caption import LETTER
from schemas.concept import plain_text

WORD = re.compile(rf"{LETTER}+|[^\w\s]")
"""A word, or a sign that stands alone: a name may be followed by a comma or by 's."""

Key = tuple[str, ...]
NO_FORMS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A known name in a text."""

    name: str
    """The name as it was given, not as the text writes it."""
    start: int
    """Its first character."""
    stop: int
    """The character after its last."""


class KnownNames:
    """Names that are found in texts: whole words, in capitals or not, singular or plural."""

    def __init__(self, names: Iterable[str], *, forms: Mapping[str, str] = NO_FORMS) -> None:
        """Know `names`, and `forms`, which give the name that another writing stands for.

        Of names that read the same the first counts.
        """
        self._names: dict[Key, str] = {}
        given = list(dict.fromkeys(names))
        for written in (given, [plural(name) for name in given]):
            for name, text in zip(given, written, strict=True):
                self._names.setdefault(words_of(text), name)
        for text, name in forms.items():
            self._names.setdefault(words_of(text), name)
        self._longest = max(map(len, self._names), default=0)

    def said(self, text: str) -> list[Mention]:
        """Return the names that a text says, in its order, none within or across another."""
        words = list(WORD.finditer(text))
        keys = [plain_text(word.group()) for word in words]
        taken = [False] * len(words)
        found: list[Mention] = []
        for length in range(min(self._longest, len(words)), 0, -1):
            for first in range(len(words) - length + 1):
                name = self._names.get(tuple(keys[first : first + length]))
                if name is None or any(taken[first : first + length]):
                    continue
                taken[first : first + length] = [True] * length
                stop = words[first + length - 1].end()
                found.append(Mention(name=name, start=words[first].start(), stop=stop))
        return sorted(found, key=lambda mention: mention.start)

    def says_any(self, text: str, names: "KnownNames") -> bool:
        """Return whether a text says one of `names`, by the longest names known here."""
        return any(mention.name in names for mention in self.said(text))

    def __contains__(self, name: str) -> bool:
        """Return whether a name is known."""
        return words_of(name) in self._names

    def within(self, name: str) -> Iterator[str]:
        """Yield the known names inside a longer name: "dog" in "hot dog"."""
        key = words_of(name)
        for length in range(1, len(key)):
            for first in range(len(key) - length + 1):
                inner = self._names.get(key[first : first + length])
                if inner is not None:
                    yield inner


def words_of(text: str) -> Key:
    """Return a text's words as `plain_text`: two texts with the same words read the same."""
    return tuple(plain_text(word) for word in WORD.findall(text))
