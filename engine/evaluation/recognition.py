"""Share of a concept's images that show it: forced choice by a scorer, with an interval.

Shapes: R images, T texts (suffixes `_RCHW`, `_RT`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.stats import binomtest

from engine.editing.prompts import plain_phrase
from engine.model.scorer import Scorer
from engine.model.vocabulary import Phrasebook
from schemas.concept import Concept, same_text
from schemas.errors import ConceptError


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A number of images out of a total."""

    shown: int
    images: int

    @property
    def rate(self) -> float:
        """The share of images that show it."""
        return self.shown / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the rate (Wilson 1927), which holds for 0, for 1 and for few images."""
        low, high = binomtest(self.shown, self.images).proportion_ci(method="wilson")
        return float(low), float(high)


def choice_texts(concept: Concept, names: Sequence[str], *, book: Phrasebook) -> list[str]:
    """Return the texts of the names that a concept's image may show, the concept's own first.

    `names` are those of its kind (`engine.evaluation.prompts.choices`). ConceptError: there is no
    other.
    """
    others = [name for name in names if not same_text(name, concept.concept)]
    if not others:
        raise ConceptError(
            f"{concept.concept!r} is the only {concept.kind.value}: its images could be taken for "
            "nothing else, so no attack on it can be judged; leave it out with --concept"
        )
    return [plain_phrase(text, kind=concept.kind, book=book) for text in (concept.concept, *others)]


def share_shown(images_RCHW: torch.Tensor, texts: Sequence[str], scorer: Scorer) -> Share:
    """Return how many images score highest with the first of the texts."""
    score_RT = scorer.score(images_RCHW, texts)
    return Share(shown=int((score_RT.argmax(1) == 0).sum()), images=len(images_RCHW))
