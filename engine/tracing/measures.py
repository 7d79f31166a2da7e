"""Measures: each gives an image one number; higher means closer to the request.

To add one, write a function of a `ScoringContext` and register it in `MEASURES`.

Shapes: R rows, C channels, h x w latent, H x W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from engine.model.scorer import Scorer
from schemas.caption import Caption
from schemas.errors import PlanError
from schemas.unit import MARGIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The final images and latents of runs."""

    images_RCHW: torch.Tensor
    """In [0, 1], on the CPU."""
    latents_RChw: torch.Tensor

    def take(self, rows: Sequence[int]) -> "Outcome":
        """Return the outcome of the given rows."""
        index = list(rows)
        return Outcome(images_RCHW=self.images_RCHW[index], latents_RChw=self.latents_RChw[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringContext:
    """The inputs of a measure besides the outcome."""

    scorer: Scorer
    caption: Caption
    alternatives: Sequence[str]
    """Targets that say other options of the attribute."""
    clean: Outcome
    """One row."""
    outcome: Outcome
    embedding_RD: torch.Tensor
    """The scorer's embeddings of the outcome's images, of length 1."""

    def cosine(self, embedding_D: torch.Tensor) -> torch.Tensor:
        """Return the cosine of each image and an embedding, float64."""
        return (self.embedding_RD @ embedding_D).cpu().double()


Measure = Callable[[ScoringContext], torch.Tensor]
"""Returns one value per row of `outcome`."""


def caption_score(context: ScoringContext) -> torch.Tensor:
    """Return the CLIPScore against the caption, a cosine."""
    return context.cosine(context.scorer.embed_texts([context.caption.caption])[0])


def target_score(context: ScoringContext) -> torch.Tensor:
    """Return the CLIPScore against the target, which says the attribute, a cosine."""
    return context.cosine(context.scorer.embed_texts([context.caption.target_text])[0])


def margin_score(context: ScoringContext) -> torch.Tensor:
    """Return the target's CLIPScore minus the mean of those of the attribute's other options.

    What a broken image does to the score of every text cancels. PlanError: there is no other
    option.
    """
    if not context.alternatives:
        raise PlanError("the margin needs other options of the attribute to compare with")
    others_ND = context.scorer.embed_texts(context.alternatives)
    return target_score(context) - context.cosine(others_ND.mean(0))


def clean_image_score(context: ScoringContext) -> torch.Tensor:
    """Return the cosine of CLIP's image embedding and the clean image's."""
    return context.cosine(context.scorer.embed_images(context.clean.images_RCHW)[0])


def clean_latent_score(context: ScoringContext) -> torch.Tensor:
    """Return minus the root mean square difference to the clean run's final latent."""
    difference = context.outcome.latents_RChw - context.clean.latents_RChw
    return -difference.cpu().double().square().mean(dim=(1, 2, 3)).sqrt()


MEASURES: dict[str, Measure] = {
    "caption": caption_score,
    "target": target_score,
    "clean-image": clean_image_score,
    "clean-latent": clean_latent_score,
    MARGIN: margin_score,
}

FLAT_AT_CLEAN = ("clean-image", "clean-latent")
"""Measures that are largest at the clean run: a gradient there says nothing."""


def check_measures(names: Sequence[str]) -> None:
    """Raise PlanError if a measure is unknown or named twice."""
    for name in names:
        if name not in MEASURES:
            raise PlanError(f"unknown measure {name!r}: there are {', '.join(MEASURES)}")
    if len(set(names)) < len(names):
        raise PlanError(f"a measure is named twice: {', '.join(names)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitScorer:
    """The measures of one unit's runs."""

    scorer: Scorer
    caption: Caption
    clean: Outcome
    measures: Sequence[str]
    alternatives: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_measures(self.measures)

    def measure(self, outcome: Outcome) -> list[dict[str, float]]:
        """Return the values of every row, by measure."""
        columns = {name: values_R.tolist() for name, values_R in self.values(outcome).items()}
        return [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]

    def values(self, outcome: Outcome) -> dict[str, torch.Tensor]:
        """Return the values_R of every measure; differentiable where the outcome is."""
        context = ScoringContext(
            scorer=self.scorer,
            caption=self.caption,
            alternatives=self.alternatives,
            clean=self.clean,
            outcome=outcome,
            embedding_RD=self.scorer.embed_images(outcome.images_RCHW),
        )
        return {name: MEASURES[name](context) for name in self.measures}
