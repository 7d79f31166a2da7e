"""The closed-form edit: the equations it must solve, and the published notebook's bias trap.

Shapes: P pairs, D inputs, E outputs (suffixes `_PD`, `_ED`, `_DD`).
"""

import functools
import operator
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.editing.closed_form import (
    Anchor,
    KeyStatistics,
    edited_weight,
    null_space_basis,
    published_weight,
    solve_changes,
    sums_of,
)
from schemas.errors import ConceptError

E, D = 5, 7


@dataclass(frozen=True, kw_only=True)
class Pairs:
    source_PD: torch.Tensor
    target_PD: torch.Tensor
    weight_P: torch.Tensor


def draw_pairs(count: int, *, seed: int, weighted: bool = True) -> Pairs:
    rng = torch.Generator().manual_seed(seed)
    source_PD, target_PD = torch.randn(2, count, D, dtype=torch.float64, generator=rng)
    weight_P = torch.rand(count, dtype=torch.float64, generator=rng) + 0.1
    return Pairs(
        source_PD=source_PD,
        target_PD=target_PD,
        weight_P=weight_P if weighted else torch.ones_like(weight_P),
    )


def draw_weight(seed: int) -> torch.Tensor:
    return torch.randn(E, D, generator=torch.Generator().manual_seed(seed))


def pair_sums(weight_ED: torch.Tensor, pairs: Pairs) -> KeyStatistics:
    change_PE = (pairs.target_PD - pairs.source_PD) @ weight_ED.double().T
    return sums_of(pairs.source_PD, {"w": change_PE}, pairs.weight_P)


def kept_sums(pairs: Pairs) -> KeyStatistics:
    still_PE = torch.zeros(len(pairs.weight_P), E, dtype=torch.float64)
    return sums_of(pairs.source_PD, {"w": still_PE}, pairs.weight_P)


def solve(edits: KeyStatistics, **options: object) -> torch.Tensor:
    return solve_changes(edits, **options)["w"]  # type: ignore[arg-type]


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
    kept = draw_pairs(kept_count, seed=seed + 1)
    anchor = Anchor(sums=kept_sums(kept), strength=preserve)
    change_ED = solve(pair_sums(weight_ED, pairs), anchors=(anchor,), ridge=ridge).requires_grad_()
    wanted_PE = (pairs.target_PD - pairs.source_PD) @ weight_ED.double().T
    error_P = (pairs.source_PD @ change_ED.T - wanted_PE).square().sum(1)
    loss = (pairs.weight_P * error_P).sum() / pairs.weight_P.sum()
    size_PD = pairs.weight_P[:, None] * pairs.source_PD**2
    loss = loss + ridge * size_PD.sum(0).mean() / pairs.weight_P.sum() * change_ED.square().sum()
    if kept_count:
        moved_P = (kept.source_PD @ change_ED.T).square().sum(1)
        loss = loss + preserve * (kept.weight_P * moved_P).sum() / kept.weight_P.sum()
    (gradient_ED,) = torch.autograd.grad(loss, change_ED)
    assert float(gradient_ED.norm()) < 1e-8 * max(1.0, preserve) * (
        1 + float(error_P.detach().sum())
    )


def test_without_ridge_the_layer_with_its_bias_says_at_the_key_what_it_said_at_the_target() -> None:
    pairs, weight_ED = draw_pairs(3, seed=1), draw_weight(1).double()
    bias_E = torch.arange(1.0, E + 1, dtype=torch.float64)
    change_ED = solve(pair_sums(weight_ED, pairs), ridge=1e-13)
    edited_PE = pairs.source_PD @ (weight_ED + change_ED).T + bias_E
    target_PE = pairs.target_PD @ weight_ED.T + bias_E
    torch.testing.assert_close(edited_PE, target_PE, rtol=1e-6, atol=1e-6)


def test_published_objective_adds_the_bias_twice() -> None:
    pairs, weight_ED = draw_pairs(3, seed=2, weighted=False), draw_weight(2).double()
    bias_E = torch.arange(1.0, E + 1, dtype=torch.float64)
    published_ED = published_weight(
        weight_ED, bias_E, source_PD=pairs.source_PD, target_PD=pairs.target_PD, ridge=1e-10
    )
    edited_PE = pairs.source_PD @ published_ED.T + bias_E
    twice_PE = pairs.target_PD @ weight_ED.T + 2 * bias_E
    torch.testing.assert_close(edited_PE, twice_PE, rtol=1e-6, atol=1e-6)


def published_by_pairs(
    weight_ED: torch.Tensor, bias_E: torch.Tensor, pairs: Pairs, ridge: float
) -> torch.Tensor:
    """The published formula once more, pair by pair, with the fp32 inverse of the notebook."""
    right_ED = ridge * weight_ED
    system_DD = ridge * torch.eye(D)
    for k_D, target_D in zip(pairs.source_PD.float(), pairs.target_PD.float(), strict=True):
        right_ED = right_ED + torch.outer(weight_ED @ target_D + bias_E, k_D)
        system_DD = system_DD + torch.outer(k_D, k_D)
    return right_ED @ torch.inverse(system_DD)


def test_published_weight_is_the_published_formula() -> None:
    pairs, weight_ED = draw_pairs(20, seed=11, weighted=False), draw_weight(11)
    bias_E = torch.linspace(-1, 1, E)
    found_ED = published_weight(
        weight_ED, bias_E, source_PD=pairs.source_PD, target_PD=pairs.target_PD, ridge=0.01
    )
    assert relative(found_ED.float(), published_by_pairs(weight_ED, bias_E, pairs, 0.01)) < 1e-4


def total(parts: list[KeyStatistics]) -> KeyStatistics:
    return functools.reduce(operator.add, parts)


def test_joint_sequential_and_distributed_edits_agree() -> None:
    weight_ED = draw_weight(3)
    drawn = [draw_pairs(n + 1, seed=n) for n in range(6)]
    parts = [pair_sums(weight_ED, pairs) for pairs in drawn]
    together = Pairs(
        source_PD=torch.cat([b.source_PD for b in drawn]),
        target_PD=torch.cat([b.target_PD for b in drawn]),
        weight_P=torch.cat([b.weight_P for b in drawn]),
    )
    joint_ED = solve(pair_sums(weight_ED, together), ridge=1e-3)
    distributed = total([total(parts[4:]), total(parts[:1]), total(parts[1:4])])
    running = parts[0]
    for part in parts[1:]:
        running = running + part  # one concept after another; only the last solve matters
        sequential_ED = solve(running, ridge=1e-3)
    assert relative(sequential_ED, joint_ED) < 1e-8
    assert relative(solve(distributed, ridge=1e-3), joint_ED) < 1e-8


def test_ridge_means_the_same_for_one_concept_as_for_a_hundred_copies() -> None:
    part = pair_sums(draw_weight(4), draw_pairs(4, seed=4))
    assert relative(solve(total([part] * 100), ridge=0.1), solve(part, ridge=0.1)) < 1e-10


def test_keeping_harder_moves_the_kept_keys_less() -> None:
    weight_ED, kept = draw_weight(5), draw_pairs(3, seed=6)
    edits = pair_sums(weight_ED, draw_pairs(2, seed=5))
    moved = [
        float((solve(edits, anchors=(anchor,), ridge=1e-6) @ kept.source_PD.T).norm())
        for anchor in (Anchor(sums=kept_sums(kept), strength=mu) for mu in (0.0, 1.0, 1e6))
    ]
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] < 1e-3 * moved[0]


def test_what_is_kept_exactly_does_not_move_at_all() -> None:
    weight_ED, kept = draw_weight(9), draw_pairs(4, seed=9)
    edits = pair_sums(weight_ED, draw_pairs(2, seed=10))
    free_DR = null_space_basis(kept_sums(kept))
    assert free_DR.shape == (D, D - 4)
    change_ED = solve(edits, ridge=1e-6, free_DR=free_DR)
    assert float(change_ED.norm()) > 0.1
    assert float((change_ED @ kept.source_PD.T).abs().max()) < 1e-10


def test_edit_within_the_free_inputs_is_the_best_of_all_such_edits() -> None:
    edits = pair_sums(draw_weight(12), draw_pairs(5, seed=12))
    free_DR = null_space_basis(kept_sums(draw_pairs(3, seed=13)))
    change_ED = solve(edits, ridge=1e-3, free_DR=free_DR)
    floor = 1e-3 * (edits.gram_DD / edits.weight).diagonal().mean()
    slope_ED = change_ED @ edits.gram_DD - edits.cross["w"] + edits.weight * floor * change_ED
    assert float((slope_ED @ free_DR).abs().max()) < 1e-9


def test_nothing_left_to_edit_is_said() -> None:
    with pytest.raises(ConceptError, match="spans all 7 inputs"):
        null_space_basis(kept_sums(draw_pairs(20, seed=14)))


def test_edited_weight_keeps_dtype_and_leaves_its_argument_alone() -> None:
    weight_ED = draw_weight(7).half()
    before = weight_ED.clone()
    edited_ED = edited_weight(weight_ED, torch.ones(E, D, dtype=torch.float64))
    assert edited_ED.dtype == torch.float16
    assert torch.equal(weight_ED, before)


@pytest.mark.parametrize("ridge", [0.0, -1.0])
def test_no_unique_solution_is_refused(ridge: float) -> None:
    with pytest.raises(ValueError, match="positive ridge"):
        solve(pair_sums(draw_weight(8), draw_pairs(2, seed=8)), ridge=ridge)
