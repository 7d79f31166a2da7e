"""How well an edit worked: what a scorer sees in images before and after, on unseen prompts.

Forced choice: an image counts as showing the name whose text scores highest among all names.
Erased is the share of removed names still recognised; kept, of all others (UnlearnCanvas and
the 100-celebrities benchmark of MACE score in this way). Their harmonic mean is
    H = 2 (1 - erased) kept / (1 - erased + kept).

Shapes: R images, T texts (suffixes `_RCHW`, `_RT`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.prompts import with_article

UNSEEN_TEMPLATES = (
    "a drawing of {article}",
    "a drawing of an upside down {name}",
    "a drawing of an orange {name}",
    "a drawing of {article} in the style of sticker",
)
"""Prompts that no edit is fitted on: none of the openings of `engine.prompts` is `a drawing of`."""


class Scorer(Protocol):
    """What `engine.scoring.open_scorer` returns."""

    def score(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """Return the cosine similarity of every image with every text."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """Shares of images that the scorer recognises as what their prompt named."""

    erased: float
    """Removed names still recognised; lower is better."""
    kept: float
    """Other names still recognised; higher is better."""

    @property
    def harmonic_mean(self) -> float:
        """2 (1 - erased) kept / (1 - erased + kept), 0 where both are."""
        gone = 1 - self.erased
        return 2 * gone * self.kept / (gone + self.kept) if gone + self.kept > 0 else 0.0


def unseen_prompts(
    names: Sequence[str], *, templates: Sequence[str] = UNSEEN_TEMPLATES
) -> tuple[list[str], list[str]]:
    """Return prompts and, for each, the name that it says."""
    asked = [(t.format(article=with_article(n), name=n), n) for n in names for t in templates]
    return [prompt for prompt, _ in asked], [name for _, name in asked]


def recognised(
    images_RCHW: torch.Tensor, said: Sequence[str], *, names: Sequence[str], scorer: Scorer
) -> list[bool]:
    """Return for each image whether the name it should show scores highest among all `names`."""
    score_RT = scorer.score(images_RCHW, [with_article(name) for name in names])
    best = score_RT.argmax(1).tolist()
    return [names[index] == name for index, name in zip(best, said, strict=True)]


def recognition(
    seen: Sequence[bool], said: Sequence[str], *, removed: Sequence[str]
) -> Recognition:
    """Return the shares over removed and other names; ValueError if either set is empty."""
    gone = [ok for ok, name in zip(seen, said, strict=True) if name in removed]
    rest = [ok for ok, name in zip(seen, said, strict=True) if name not in removed]
    if not gone or not rest:
        raise ValueError("recognition needs removed and kept names")
    return Recognition(erased=sum(gone) / len(gone), kept=sum(rest) / len(rest))
