"""How well a screen agrees with exact effects, and what it saves.

Shapes: K cells, N captions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from engine.statistics.inference import Array, draws_of
from engine.statistics.prediction_powered import bound_of_gain, clipped, prediction_powered

CLIP = 0.15
"""Estimates beyond this effect are cut: where a score saturates, few captions rule a mean."""
TOP, SEARCHED = 10, 5
"""The exact top tenth is looked for in the screen's top fifth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A screen and the exact effects of the same cells and captions."""

    within: float
    """Spearman correlation of cells within a caption, the mean over captions."""
    of_means: float
    """Spearman correlation of the means over captions."""
    found: float
    """Share of the exact top tenth of cells among the screen's top fifth."""
    by_other_half: float | None
    """The same of exact effects of the other half of the captions, by which both are halved."""

    @property
    def missed(self) -> float:
        """The miss rate."""
        return 1 - self.found


def _rank_correlation(x: Array, y: Array) -> float:
    """Return Spearman's correlation."""
    found: Any = spearmanr(x, y)
    return float(found.statistic)


def agreement(exact_KN: Array, screened_KN: Array) -> Agreement:
    """Return the agreement of estimates, cut at CLIP, with exact effects."""
    screened_KN = clipped(screened_KN, at=CLIP)
    by_caption = [
        _rank_correlation(x, f)
        for x, f in zip(exact_KN.T, screened_KN.T, strict=True)
        if np.ptp(x) > 0 and np.ptp(f) > 0
    ]
    mean_K, estimated_K = exact_KN.mean(1), screened_KN.mean(1)
    halves = exact_KN[:, ::2].mean(1), exact_KN[:, 1::2].mean(1)
    return Agreement(
        within=float(np.mean(by_caption)) if by_caption else float("nan"),
        of_means=_rank_correlation(mean_K, estimated_K),
        found=share_found(mean_K, estimated_K),
        by_other_half=share_found(*halves) if exact_KN.shape[1] > 1 else None,
    )


def share_found(exact_K: Array, estimated_K: Array) -> float:
    """Return the share of the exact top tenth among the estimated top fifth."""
    count = len(exact_K)
    top = set(np.argsort(-exact_K)[: max(1, count // TOP)].tolist())
    searched = set(np.argsort(-estimated_K)[: max(1, count // SEARCHED)].tolist())
    return len(top & searched) / len(top)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """The variance of the exact captions' mean, divided by that of the joined mean, in medians over
    cells."""

    measured: float
    of_top: float
    """The same in the exact top tenth of cells."""
    bound: float
    """1 / (1 - r^2) with the correlation over captions of exact and estimated effects."""
    bound_of_top: float


def gain(exact_KN: Array, screened_KN: Array, *, exact: int, draws: int, seed: int = 0) -> Gain:
    """Return the gain of `exact` captions drawn at random among all, which are screened.

    The variances are those of the means over `draws` drawings, around the mean of all captions.
    """
    screened_KN = clipped(screened_KN, at=CLIP)
    count, rng = exact_KN.shape[1], np.random.default_rng(seed)
    alone, joined = [], []
    for _ in range(draws):
        order = rng.permutation(count)
        own, others = order[:exact], order[exact:]
        alone.append(exact_KN[:, own].mean(1))
        found = prediction_powered(
            exact_KN[:, own],
            screened_KN[:, own],
            screened_KN[:, others],
            draws_of(tuple(map(str, own))),
        )
        joined.append(found.mean_S)
    mean_K1 = exact_KN.mean(1)
    square_alone_K = ((np.array(alone) - mean_K1) ** 2).mean(0)
    square_joined_K = ((np.array(joined) - mean_K1) ** 2).mean(0)
    ratio_K = square_alone_K / np.maximum(square_joined_K, 1e-30)
    r_K = _correlations(exact_KN, screened_KN)
    top = np.argsort(-mean_K1)[: max(1, len(mean_K1) // TOP)]
    return Gain(
        measured=float(np.median(ratio_K)),
        of_top=float(np.median(ratio_K[top])),
        bound=bound_of_gain(float(np.median(np.maximum(r_K, 0)))),
        bound_of_top=bound_of_gain(float(np.median(np.maximum(r_K[top], 0)))),
    )


def _correlations(x_KN: Array, f_KN: Array) -> Array:
    dx_KN, df_KN = (y - y.mean(1, keepdims=True) for y in (x_KN, f_KN))
    norm_K = np.sqrt((dx_KN**2).sum(1) * (df_KN**2).sum(1))
    return (dx_KN * df_KN).sum(1) / np.maximum(norm_K, 1e-30)


def found_by_exact_top(exact_K: Array, estimated_K: Array, *, share: float) -> float:
    """Return the share of the exact top tenth in a screen's top `share` of cells."""
    count = len(exact_K)
    top = set(np.argsort(-exact_K)[: max(1, count // TOP)].tolist())
    chosen = set(np.argsort(-estimated_K)[: max(1, round(share * count))].tolist())
    return len(top & chosen) / len(top)


def least_share(exact_K: Array, estimated_K: Array, *, wanted: float = 0.9) -> float:
    """Return the least share of cells, by the screen's rank, with `wanted` of the exact top."""
    shares = np.arange(1, len(exact_K) + 1) / len(exact_K)
    return float(
        next(s for s in shares if found_by_exact_top(exact_K, estimated_K, share=s) >= wanted)
    )
