"""DiffQuickFix: a closed-form edit of a linear projection, solved for all concepts at once.

Published objective (Basu et al. 2024, "Localizing and Editing Knowledge in Text-to-Image
Generative Models", equations 5 and 6; also ROME, MEMIT, TIME, UCE):
    min_W  sum_i w_i |W k_i - v_i|^2 + lambda |W - W0|^2.
Its bias trap: the v_i of the published notebook are the layer's outputs, bias included, so the
edited layer adds its bias twice. Solved here for the change dW = W - W0, in which a bias cancels:
    dW = A (B + mu B_kept + nu B_general + lambda s I)^-1,
    A = sum w r k^T / sum w,   B = sum w k k^T / sum w,
with k the keys of concept prompts and r the wanted change of the output there; B_kept of the keys
of kept prompts, whose r is zero or undoes the effect of an edit of an earlier component on them;
B_general the covariance of keys over general captions (ROME, MEMIT). Every set is divided by its
total weight, so that lambda, mu and nu mean the same for one concept as for a thousand; s is the
mean of diag(B), so that lambda has no unit. Keys that must not move at all: `null_space_basis`.

Shapes: P rows, D inputs, E outputs of the projection (suffixes `_PD`, `_PE`, `_ED`, `_DD`).
float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from schemas.errors import ConceptError, NotFinite

NULL = 1e-13
"""Eigenvalues of a Gram matrix below this part of the largest count as zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatistics:
    """Sums over keys from which every edit of one component is solved; adding them joins edits.

    The sums hold no edited weight of the component itself, so that they and the solution are the
    same whether concepts come together, one after another or from several workers.
    """

    cross: Mapping[str, torch.Tensor]
    """A's numerator, sum w r k^T, `_ED`, by the projection's public name."""
    gram_DD: torch.Tensor
    """B's numerator, sum w k k^T."""
    weight: float
    """sum w."""
    keys: int

    def __add__(self, other: "KeyStatistics") -> "KeyStatistics":
        return KeyStatistics(
            cross={name: cross_ED + other.cross[name] for name, cross_ED in self.cross.items()},
            gram_DD=self.gram_DD + other.gram_DD,
            weight=self.weight + other.weight,
            keys=self.keys + other.keys,
        )

    def without(self, other: "KeyStatistics") -> "KeyStatistics":
        """Return the sums minus sums over some of the same rows, whose r is zero."""
        return KeyStatistics(
            cross=self.cross,
            gram_DD=self.gram_DD - other.gram_DD,
            weight=self.weight - other.weight,
            keys=self.keys - other.keys,
        )


def sums_of(
    key_PD: torch.Tensor, changes: Mapping[str, torch.Tensor], weight_P: torch.Tensor
) -> KeyStatistics:
    """Return the sums over rows; `changes` holds each projection's r, `_PE`."""
    weighted_PD = weight_P[:, None] * key_PD
    return KeyStatistics(
        cross={name: change_PE.T @ weighted_PD for name, change_PE in changes.items()},
        gram_DD=key_PD.T @ weighted_PD,
        weight=float(weight_P.sum()),
        keys=len(key_PD),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Sums of keys that should stay, and their weight relative to the concepts'."""

    sums: KeyStatistics
    strength: float


def solve_changes(
    edits: KeyStatistics,
    *,
    anchors: tuple[Anchor, ...] = (),
    ridge: float,
    free_DR: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Return dW_ED of each projection, the exact minimum of the objective, by a Cholesky solve.

    `free_DR`: an orthonormal basis of the inputs that may change (`null_space_basis`); None: all.
    ValueError: no weight on any key, or `ridge` is not positive (the solution is not unique).
    """
    if ridge <= 0 or edits.weight <= 0:
        raise ValueError("an edit needs a positive ridge and at least one weighted key")
    used = [a for a in anchors if a.strength > 0 and a.sums.weight > 0]
    gram_DD = edits.gram_DD / edits.weight
    # s comes from the concepts' keys alone: it must not move when more is kept.
    floor = ridge * gram_DD.diagonal().mean()
    gram_DD = gram_DD + sum(a.strength * a.sums.gram_DD / a.sums.weight for a in used)
    system_RR = gram_DD if free_DR is None else free_DR.T @ gram_DD @ free_DR
    system_RR = system_RR + floor * torch.eye(len(system_RR), dtype=torch.float64)
    factor_RR = _factor(system_RR, ridge)
    changes = {}
    for name, cross_ED in edits.cross.items():
        wanted_ED = cross_ED / edits.weight + sum(
            a.strength * a.sums.cross[name] / a.sums.weight for a in used if name in a.sums.cross
        )
        right_ER = wanted_ED if free_DR is None else wanted_ED @ free_DR
        solved_RE = torch.cholesky_solve(right_ER.T, factor_RR)
        change_DE = solved_RE if free_DR is None else free_DR @ solved_RE
        changes[name] = _finite(change_DE.T, ridge)
    return changes


def _factor(system_DD: torch.Tensor, ridge: float) -> torch.Tensor:
    try:
        return torch.linalg.cholesky(system_DD)
    except torch.linalg.LinAlgError as error:
        raise _without_solution(ridge) from error


def _finite(solved_ED: torch.Tensor, ridge: float) -> torch.Tensor:
    if not bool(solved_ED.isfinite().all()):
        raise _without_solution(ridge)
    return solved_ED


def _without_solution(ridge: float) -> NotFinite:
    return NotFinite(
        f"the edit has no solution in finite numbers at --ridge {ridge:g}: give a larger one, or "
        "weights of concepts that differ less"
    )


def null_space_basis(kept: KeyStatistics) -> torch.Tensor:
    """Return an orthonormal basis `_DR` of the inputs orthogonal to every kept key.

    A change of these inputs alone leaves the outputs at kept keys unchanged: the null-space
    projection of AlphaEdit (Fang et al. 2025) and SPEED (Li et al. 2026). ConceptError: none left.
    """
    value_D, vector_DD = torch.linalg.eigh(kept.gram_DD)
    free_DR = vector_DD[:, value_D <= NULL * value_D[-1]]
    if free_DR.shape[1] == 0:
        raise ConceptError(
            f"what is to be kept exactly spans all {len(value_D)} inputs of the component, "
            "so nothing can be edited: keep fewer names exactly"
        )
    return free_DR


def edited_weight(weight_ED: torch.Tensor, change_ED: torch.Tensor) -> torch.Tensor:
    """Return W0 + dW in the dtype of W0, rounded once."""
    return (weight_ED.cpu().double() + change_ED.cpu()).to(weight_ED)


def published_weight(
    weight_ED: torch.Tensor,
    bias_E: torch.Tensor,
    *,
    source_PD: torch.Tensor,
    target_PD: torch.Tensor,
    ridge: float,
) -> torch.Tensor:
    """Return W as the published notebook solves it, to reproduce it: its targets include the bias.

    W = (lambda W0 + V K^T) (lambda I + K K^T)^-1 with V = W0 K' + b, every pair counted once.
    At run time the layer gives W k + b, about W0 k' + 2b.
    """
    weight_ED = weight_ED.double()
    value_PE = target_PD @ weight_ED.T + bias_E.double()
    identity_DD = torch.eye(weight_ED.shape[1], dtype=torch.float64)
    system_DD = ridge * identity_DD + source_PD.T @ source_PD
    right_ED = ridge * weight_ED + value_PE.T @ source_PD
    return _finite(torch.cholesky_solve(right_ED.T, _factor(system_DD, ridge)).T, ridge)
