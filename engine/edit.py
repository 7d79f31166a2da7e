"""DiffQuickFix: a closed-form edit of one linear projection, solved for all concepts at once.

Published objective (Basu et al. 2024, "Localizing and Editing Knowledge in Text-to-Image
Generative Models", equations 5 and 6; also ROME, MEMIT, TIME, UCE):
    min_W  sum_i w_i |W k_i - v_i|^2 + lambda |W - W0|^2.
Its bias trap: the v_i of the published notebook are the layer's outputs, bias included, so the
edited layer adds its bias twice. Solved here for the change dW = W - W0, in which a bias cancels:
    dW = R K^T (K K^T + mu P P^T + lambda s I)^-1,    R = W0 K' - W0 K,
with K the keys of concept prompts, K' those of target prompts, P the keys of what is to be kept,
each set weighted and divided by its total weight, so that lambda and mu mean the same for one
concept as for a thousand, and s the mean of diag(K K^T), so that lambda has no unit.

Shapes: P pairs, D inputs, E outputs of the projection (suffixes `_PD`, `_ED`, `_DD`). float64.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from engine.keys import KeyPairs, Keys, RoleWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSettings:
    """Everything that determines the edited weight besides model, concepts and prompts."""

    ridge: float = 1e-3
    """lambda: how much the change is kept small in every direction, in units of the keys."""
    preserve: float = 6.0
    """mu: how much the outputs at the keys of what is kept count beside those at the concepts."""
    roles: RoleWeights = field(default_factory=RoleWeights)
    """Weights of a concept prompt's tokens."""
    preserve_roles: RoleWeights = field(default_factory=RoleWeights)
    """Weights of a kept prompt's tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Sums over key pairs from which every edit is solved; adding them joins edits.

    They hold no edited weight: residuals are always those of the unedited W0, so concepts may
    come together, one after another, or from several workers, and give the same W.
    """

    cross_ED: torch.Tensor
    """A = sum w r k^T."""
    gram_DD: torch.Tensor
    """B = sum w k k^T."""
    weight: float
    """sum w."""

    def __add__(self, other: "Statistics") -> "Statistics":
        return Statistics(
            cross_ED=self.cross_ED + other.cross_ED,
            gram_DD=self.gram_DD + other.gram_DD,
            weight=self.weight + other.weight,
        )


def pair_statistics(weight_ED: torch.Tensor, pairs: KeyPairs) -> Statistics:
    """Return the sums of pairs: r = W0 (k' - k), what the layer's output should change by."""
    residual_PE = (pairs.target_PD - pairs.source_PD) @ weight_ED.double().T
    weighted_PD = pairs.weight_P[:, None] * pairs.source_PD
    return Statistics(
        cross_ED=residual_PE.T @ weighted_PD,
        gram_DD=pairs.source_PD.T @ weighted_PD,
        weight=float(pairs.weight_P.sum()),
    )


def kept_statistics(weight_ED: torch.Tensor, kept: Keys) -> Statistics:
    """Return the sums of kept keys, whose wanted change is zero."""
    return Statistics(
        cross_ED=torch.zeros_like(weight_ED, dtype=torch.float64),
        gram_DD=kept.key_PD.T @ (kept.weight_P[:, None] * kept.key_PD),
        weight=float(kept.weight_P.sum()),
    )


def solve_change(
    edits: Statistics, *, kept: Statistics | None = None, ridge: float, preserve: float = 1.0
) -> torch.Tensor:
    """Return dW_ED, the exact minimum of the objective above, by a Cholesky solve.

    ValueError: no weight on any pair, or `ridge` is not positive (the solution is not unique).
    """
    if ridge <= 0 or edits.weight <= 0:
        raise ValueError("an edit needs a positive ridge and at least one weighted key pair")
    system_DD = edits.gram_DD / edits.weight
    # s comes from the concepts' keys alone: it must not move when more is kept.
    scale = system_DD.diagonal().mean()
    if kept is not None and kept.weight > 0:
        system_DD = system_DD + preserve * kept.gram_DD / kept.weight
    system_DD = system_DD + ridge * scale * torch.eye(len(system_DD), dtype=torch.float64)
    factor_DD = torch.linalg.cholesky(system_DD)
    return torch.cholesky_solve(edits.cross_ED.T / edits.weight, factor_DD).T


def edited_weight(weight_ED: torch.Tensor, change_ED: torch.Tensor) -> torch.Tensor:
    """Return W0 + dW in the dtype of W0, rounded once."""
    return (weight_ED.double() + change_ED).to(weight_ED.dtype)


def published_weight(
    weight_ED: torch.Tensor, bias_E: torch.Tensor, pairs: KeyPairs, *, ridge: float
) -> torch.Tensor:
    """Return W as the published notebook solves it, to reproduce it: its targets include the bias.

    W = (lambda W0 + V K^T) (lambda I + K K^T)^-1 with V = W0 K' + b, every pair counted once.
    At run time the layer gives W k + b, about W0 k' + 2b.
    """
    weight_ED = weight_ED.double()
    value_PE = pairs.target_PD @ weight_ED.T + bias_E.double()
    identity_DD = torch.eye(weight_ED.shape[1], dtype=torch.float64)
    system_DD = ridge * identity_DD + pairs.source_PD.T @ pairs.source_PD
    right_ED = ridge * weight_ED + value_PE.T @ pairs.source_PD
    return torch.cholesky_solve(right_ED.T, torch.linalg.cholesky(system_DD)).T


@contextmanager
def replaced_weight(projection: nn.Linear, weight_ED: torch.Tensor) -> Iterator[None]:
    """Run the block with the projection's weight replaced; the original is back afterwards."""
    original = projection.weight.data
    projection.weight.data = weight_ED.to(original)
    try:
        yield
    finally:
        projection.weight.data = original
