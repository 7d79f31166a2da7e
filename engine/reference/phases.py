"""The phases of a training: all kinds of scenes first, then a mix with more of several sprites.

Sprites that share an image are half as large, so a network learns them later than lone ones.
"""

from dataclasses import dataclass
from pathlib import Path

from engine.reference.sampling import BROAD, Mix


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase: it continues from the averaged weights of the one before, with new optimizers."""

    name: str
    """Name of its checkpoint, without the suffix."""
    steps: int
    rate: float
    """Highest learning rate."""
    seed: int
    mix: Mix = BROAD


def last_checkpoint(work: Path, phases: tuple[Phase, ...]) -> Path | None:
    """Return the checkpoint of the last phase that has one."""
    found = [path for phase in phases if (path := work / f"{phase.name}.pt").exists()]
    return found[-1] if found else None
