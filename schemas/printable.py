"""Text of users and files as a terminal may show it: no control characters, no endless lines."""

import reprlib
import unicodedata

UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that move the cursor, change colors, reorder text or end lines."""
JOINERS = "\u200c\u200d"
"""Format characters that words and emoji are written with."""
LINE = 900
"""Characters of one line of a message."""
MESSAGE = 4000
"""Characters of a message."""


def printable(text: str, *, keep: str = "") -> str:
    """Return text with each control and format character, but those in `keep`, as its escape.

    So a caption cannot recolor a terminal, write into its title, or reverse the text around it.
    """
    if text.isprintable():
        return text
    return "".join(
        character if _is_shown(character) or character in keep else _escaped(character)
        for character in text
    )


def message(text: str, *, has_lines: bool, most: int = LINE) -> str:
    """Return an error's text for a terminal: printable, and lines of over `most` characters cut.

    Without `has_lines` a newline is of a name in the text, and is written as its escape.
    """
    lines = [_cut(line, most) for line in printable(text, keep="\n" * has_lines).split("\n")]
    return _cut("\n".join(lines), MESSAGE)


def shown(value: object, *, most: int = 80) -> str:
    """Return the `repr` of a value, at most about `most` characters of it.

    The full `repr` is never built: that of a YAML bomb has gigabytes.
    """
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = most
    short.maxlevel, short.maxlist, short.maxdict, short.maxtuple, short.maxset = 2, 4, 4, 4, 4
    return _cut(short.repr(value), 4 * most)


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    kept = (most - 5) // 2
    return f"{text[:kept]} ... {text[-kept:]}"


def _is_shown(character: str) -> bool:
    return character in JOINERS or unicodedata.category(character) not in UNPRINTABLE


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
