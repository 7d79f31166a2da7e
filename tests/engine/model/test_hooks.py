"""Hooks: what they see, and that none is left after its context."""

import pytest
import torch
from torch import nn

from engine.model.hooks import ActivationCopy, HookPoint, Side, copy_rows, count_rows, patched


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


class Pair(nn.Module):
    """Returns two tensors, or None and one."""

    def __init__(self, *, has_first: bool) -> None:
        super().__init__()
        self.has_first = has_first

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        return (x + 1 if self.has_first else None), x + 2


def test_a_hook_point_names_the_element_of_a_tuple() -> None:
    module, x = Pair(has_first=True), torch.zeros(2, 3)
    with patched({HookPoint(module, Side.OUTPUT, 1): torch.zeros_like}):
        first, second = module(x)
    assert first.unique().tolist() == [1]
    assert second.unique().tolist() == [0]


@pytest.mark.parametrize("side", [Side.OUTPUT, Side.OUTPUTS])
def test_an_element_that_is_none_stays_so(side: Side) -> None:
    module = Pair(has_first=False)
    with patched({HookPoint(module, side, 0): torch.zeros_like}):
        first, second = module(torch.zeros(2, 3))
    assert first is None
    assert second.unique().tolist() == [2 if side is Side.OUTPUT else 0]


def test_positions_are_of_tokens_alone() -> None:
    spans = (slice(1, None), (1, 2))
    for positions in spans:
        edit = copy_rows([ActivationCopy(row=1, sources=(0,), positions=positions)])
        copied = edit(torch.stack([torch.ones(3, 4), torch.zeros(3, 4)]))
        assert copied[1].sum(dim=-1).tolist() == [0, 4, 4]
        with pytest.raises(ValueError, match="no token positions"):
            edit(torch.zeros(2, 4, 3, 3))
