"""The closed-form edit: the equations it must solve, and the published notebook's bias trap.

Shapes: P pairs, D inputs, E outputs (suffixes `_PD`, `_ED`, `_DD`).
"""

import functools
import operator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.edit import (
    Statistics,
    edited_weight,
    kept_statistics,
    pair_statistics,
    published_weight,
    solve_change,
)
from engine.keys import KeyPairs, Keys

E, D = 5, 7


def draw_pairs(count: int, *, seed: int, weighted: bool = True) -> KeyPairs:
    rng = torch.Generator().manual_seed(seed)
    source_PD, target_PD = torch.randn(2, count, D, dtype=torch.float64, generator=rng)
    weight_P = torch.rand(count, dtype=torch.float64, generator=rng) + 0.1
    return KeyPairs(
        source_PD=source_PD,
        target_PD=target_PD,
        weight_P=weight_P if weighted else torch.ones_like(weight_P),
    )


def draw_weight(seed: int) -> torch.Tensor:
    return torch.randn(E, D, generator=torch.Generator().manual_seed(seed))


def relative(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).norm() / right.norm())


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 40),
    kept_count=st.integers(0, 20),
    ridge=st.floats(1e-4, 10.0),
    preserve=st.floats(0.0, 100.0),
    seed=st.integers(0, 2**20),
)
def test_change_is_where_the_gradient_of_the_objective_vanishes(
    count: int, kept_count: int, ridge: float, preserve: float, seed: int
) -> None:
    pairs, weight_ED = draw_pairs(count, seed=seed), draw_weight(seed)
    other = draw_pairs(kept_count, seed=seed + 1)
    kept = Keys(key_PD=other.source_PD, weight_P=other.weight_P)
    change_ED = solve_change(
        pair_statistics(weight_ED, pairs),
        kept=kept_statistics(weight_ED, kept),
        ridge=ridge,
        preserve=preserve,
    ).requires_grad_()
    wanted_PE = (pairs.target_PD - pairs.source_PD) @ weight_ED.double().T
    error_P = (pairs.source_PD @ change_ED.T - wanted_PE).square().sum(1)
    loss = (pairs.weight_P * error_P).sum() / pairs.weight_P.sum()
    size_PD = pairs.weight_P[:, None] * pairs.source_PD**2
    loss = loss + ridge * size_PD.sum(0).mean() / pairs.weight_P.sum() * change_ED.square().sum()
    if kept_count:
        moved_P = (kept.key_PD @ change_ED.T).square().sum(1)
        loss = loss + preserve * (kept.weight_P * moved_P).sum() / kept.weight_P.sum()
    (gradient_ED,) = torch.autograd.grad(loss, change_ED)
    assert float(gradient_ED.norm()) < 1e-8 * max(1.0, preserve) * (
        1 + float(error_P.detach().sum())
    )


def test_without_ridge_the_layer_with_its_bias_says_at_the_key_what_it_said_at_the_target() -> None:
    pairs, weight_ED = draw_pairs(3, seed=1), draw_weight(1).double()
    bias_E = torch.arange(1.0, E + 1, dtype=torch.float64)
    change_ED = solve_change(pair_statistics(weight_ED, pairs), ridge=1e-13)
    edited_PE = pairs.source_PD @ (weight_ED + change_ED).T + bias_E
    target_PE = pairs.target_PD @ weight_ED.T + bias_E
    torch.testing.assert_close(edited_PE, target_PE, rtol=1e-6, atol=1e-6)


def test_published_objective_adds_the_bias_twice() -> None:
    pairs, weight_ED = draw_pairs(3, seed=2, weighted=False), draw_weight(2).double()
    bias_E = torch.arange(1.0, E + 1, dtype=torch.float64)
    published_ED = published_weight(weight_ED, bias_E, pairs, ridge=1e-10)
    edited_PE = pairs.source_PD @ published_ED.T + bias_E
    twice_PE = pairs.target_PD @ weight_ED.T + 2 * bias_E
    torch.testing.assert_close(edited_PE, twice_PE, rtol=1e-6, atol=1e-6)


def total(parts: list[Statistics]) -> Statistics:
    return functools.reduce(operator.add, parts)


def test_joint_sequential_and_distributed_edits_agree() -> None:
    weight_ED = draw_weight(3)
    parts = [pair_statistics(weight_ED, draw_pairs(n + 1, seed=n)) for n in range(6)]
    batches = [draw_pairs(n + 1, seed=n) for n in range(6)]
    together = KeyPairs(
        source_PD=torch.cat([b.source_PD for b in batches]),
        target_PD=torch.cat([b.target_PD for b in batches]),
        weight_P=torch.cat([b.weight_P for b in batches]),
    )
    joint_ED = solve_change(pair_statistics(weight_ED, together), ridge=1e-3)
    distributed = total([total(parts[4:]), total(parts[:1]), total(parts[1:4])])
    running = parts[0]
    for part in parts[1:]:
        running = running + part  # one concept after another; only the last solve matters
        sequential_ED = solve_change(running, ridge=1e-3)
    assert relative(sequential_ED, joint_ED) < 1e-8
    assert relative(solve_change(distributed, ridge=1e-3), joint_ED) < 1e-8


def test_ridge_means_the_same_for_one_concept_as_for_a_hundred_copies() -> None:
    part = pair_statistics(draw_weight(4), draw_pairs(4, seed=4))
    assert relative(solve_change(total([part] * 100), ridge=0.1), solve_change(part, ridge=0.1)) < (
        1e-10
    )


def test_keeping_harder_moves_the_kept_keys_less() -> None:
    weight_ED, kept_pairs = draw_weight(5), draw_pairs(3, seed=6)
    kept = Keys(key_PD=kept_pairs.source_PD, weight_P=kept_pairs.weight_P)
    edits = pair_statistics(weight_ED, draw_pairs(2, seed=5))
    kept_sums = kept_statistics(weight_ED, kept)
    moved = [
        float((solve_change(edits, kept=kept_sums, ridge=1e-6, preserve=mu) @ kept.key_PD.T).norm())
        for mu in (0.0, 1.0, 1e6)
    ]
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] < 1e-3 * moved[0]


def test_edited_weight_keeps_dtype_and_leaves_its_argument_alone() -> None:
    weight_ED = draw_weight(7).half()
    before = weight_ED.clone()
    edited_ED = edited_weight(weight_ED, torch.ones(E, D, dtype=torch.float64))
    assert edited_ED.dtype == torch.float16
    assert torch.equal(weight_ED, before)


@pytest.mark.parametrize("ridge", [0.0, -1.0])
def test_no_unique_solution_is_refused(ridge: float) -> None:
    with pytest.raises(ValueError, match="positive ridge"):
        solve_change(pair_statistics(draw_weight(8), draw_pairs(2, seed=8)), ridge=ridge)
