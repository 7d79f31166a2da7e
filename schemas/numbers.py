"""Numbers as users write them: decimal digits of ASCII, as 12, 0.5 or 1e-3."""

from collections.abc import Sequence
from typing import cast

from schemas.printable import shown


def is_decimal(text: str) -> bool:
    """Return whether a text that Python reads as a number is written in decimal digits of ASCII.

    Python reads `1_0` as 10 and the digits of every script, which look alike in none.
    """
    return text.strip().isascii() and "_" not in text


def check_decimal(written: object, read: object, *, name: str = "") -> None:
    """Raise ValueError for a text, or one in a list, that is a number in no decimal digits."""
    if isinstance(written, list | tuple) and isinstance(read, list | tuple):
        several = cast("Sequence[object]", written), cast("Sequence[object]", read)
        for each, number in zip(*several, strict=False):
            check_decimal(each, number, name=name)
    elif isinstance(written, str) and isinstance(read, int | float) and not is_decimal(written):
        raise ValueError(f"{name}write {shown(written)} in decimal digits, without `_`")


def decimal(text: str) -> float:
    """Return the number that a text writes in decimal digits; ValueError if it is none."""
    number = float(text)
    check_decimal(text, number)
    return number
