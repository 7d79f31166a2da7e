"""How far apart float32 numbers may be that ought to be the same but for rounding.

A kernel chooses the order in which it adds by the shapes it is given, by the number of threads and
by the processor's instructions. Equal bits are therefore asserted only of calls with equal shapes
and as many threads in processes of one machine; a row of a batch and the same row alone are equal
to `ROUNDING`, on any machine.
"""

import torch

ROUNDING = 1e-4
"""Of images (0 to 1), cosines and latents (up to 45 in these tests, so 20 of their last bits).

Twice float32's epsilon, added to the result of every kernel, makes 2e-5 of it.
"""


def largest_difference(left: torch.Tensor, right: torch.Tensor) -> float:
    """Return the largest difference of two tensors' elements."""
    return float((left - right).abs().max())


def assert_near(got: torch.Tensor, expected: torch.Tensor, what: object = "") -> None:
    """Check that two tensors are the same but for rounding; `what` names them if they are not."""
    assert got.shape == expected.shape, what
    assert largest_difference(got, expected) < ROUNDING, what
