"""Hooks: what they see, and that none is left after its context."""

import pytest
import torch
from torch import nn

from engine.model.hooks import count_rows


def test_rows_are_counted_inside_the_context_alone() -> None:
    network, counts = nn.Linear(2, 2), list[int]()
    with count_rows(network, counts.append):
        network(torch.zeros(3, 2))
        network(torch.zeros(1, 2))
    network(torch.zeros(5, 2))
    assert counts == [3, 1]


def test_an_error_ends_the_counting() -> None:
    network, counts = nn.Linear(2, 2), list[int]()
    with pytest.raises(RuntimeError), count_rows(network, counts.append):
        network(torch.zeros(3, 7))
    network(torch.zeros(5, 2))
    assert counts == [3]
