"""The doctor's findings: the outcome of each check, and the faults of single files behind it."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The outcome of a check in one word."""

    OK = "ok"
    NOTE = "note"
    """Something is unusual, but every score counts once."""
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check; `dqf doctor` prints these fields."""

    check: str
    state: State
    found: str
    todo: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault of one file."""

    check: str
    """`tables`, `parts`, `units`, `rows`, `scores` or `images`."""
    name: str
    text: str
