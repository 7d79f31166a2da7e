"""Which combinations of parameters every run of the tests tries."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet


def covering(*axes: Iterable[Any]) -> list[ParameterSet]:
    """Return all combinations of values of `axes`; most of them are marked slow.

    Each value is in one that is not: the n-th combines the n-th values of the axes, of which the
    shorter ones begin again.
    """
    values = [list(axis) for axis in axes]
    longest = max(map(len, values))
    kept = [tuple(axis[n % len(axis)] for axis in values) for n in range(longest)]
    return [
        pytest.param(*combination) if combination in kept else slow(*combination)
        for combination in product(*values)
    ]


def slow(*values: Any) -> ParameterSet:
    """Return parameters that only `make test-all` tries."""
    return pytest.param(*values, marks=pytest.mark.slow)
