"""What the doctor says: the outcome of each check, and the faults of single files behind it."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What a check says."""

    OK = "ok"
    NOTE = "note"
    """Odd, but every score counts once."""
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check; the fields are what `dqf doctor` prints."""

    check: str
    state: State
    found: str
    todo: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with a file."""

    check: str
    """`tables`, `parts`, `units`, `rows`, `scores` or `images`."""
    name: str
    text: str
