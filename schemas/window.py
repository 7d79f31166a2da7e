"""Windows of denoising steps: when a component is restored."""

import re
from collections.abc import Iterable, Iterator

from schemas.errors import PlanError

Window = tuple[int, int]
"""Steps start .. stop - 1; step 0 is the first evaluation of the denoiser."""

GRAMMAR = "all, each, from, until, sliding:W or START:STOP"


def expand_windows(specs: Iterable[str], steps: int) -> tuple[Window, ...]:
    """Return the windows of `specs` over so many steps, without repeats, by their start.

    `all`: every step. `each`: every single step. `from`: from t on, for every t. `until`: the steps
    before t, for every t. `sliding:W`: every W steps in a row. `START:STOP`: that one window.
    PlanError: a spec is none of these or reaches past the last step.
    """
    windows = {window for spec in specs for window in _windows(spec, steps)}
    return tuple(sorted(windows))


def _windows(spec: str, steps: int) -> Iterator[Window]:
    every = range(steps)
    if spec == "all":
        yield 0, steps
    elif spec == "each":
        yield from ((t, t + 1) for t in every)
    elif spec == "from":
        yield from ((t, steps) for t in every)
    elif spec == "until":
        yield from ((0, t + 1) for t in every)
    elif sliding := re.fullmatch(r"sliding:([0-9]+)", spec):
        yield from _sliding(int(sliding[1]), steps)
    elif bounds := re.fullmatch(r"([0-9]+):([0-9]+)", spec):
        yield _bounded(int(bounds[1]), int(bounds[2]), steps)
    else:
        raise PlanError(f"unknown window {spec!r}: give {GRAMMAR}")


def _sliding(width: int, steps: int) -> Iterator[Window]:
    if not 1 <= width <= steps:
        raise PlanError(f"window sliding:{width} does not fit {steps} steps: give 1 to {steps}")
    yield from ((t, t + width) for t in range(steps - width + 1))


def _bounded(start: int, stop: int, steps: int) -> Window:
    if not start < stop <= steps:
        raise PlanError(f"window {start}:{stop} is empty or reaches past the last of {steps} steps")
    return start, stop
