"""The arithmetic of row evaluations: exact traces, screens, and both together.

A backward pass counts two row evaluations, a step that is evaluated again one.
"""

SCREEN = 2 + 0.5 + 1 + 2
"""Row evaluations of a guided screen of one measure, per step: the clean and the corrupted run, the
clean run's conditional half and the corrupted run again, and a backward pass."""


def every_step(components: int, steps: int, *, share: float = 1.0) -> float:
    """Return the row evaluations of an exact map of a share of all single steps."""
    # A guided row forks at its window; there its unconditional half is known.
    forked = steps * (steps + 1) / 2 - steps / 2
    return 2 * steps + share * components * forked


def all_steps(components: int, steps: int) -> float:
    """Return the row evaluations of an exact trace of all steps at once."""
    return steps * (2 + components) - components / 2


def screen(steps: int) -> float:
    """Return the row evaluations of a screen of one measure."""
    return SCREEN * steps


def pays_from(steps: int) -> int:
    """Return the least number of components whose exact trace of all steps costs more."""
    return next(n for n in range(1, 1000) if all_steps(n, steps) > screen(steps))
