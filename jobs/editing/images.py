"""Images of an edit's concepts and of untouched ones, before and after, scored and drawn.

Shapes: R images (rows of prompts x seeds), C H W image.
"""

# pyright: reportUnknownMemberType=false
# torch leaves parts of some methods without types.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch

from engine.editing.delta import replaced
from engine.editing.prompts import kept_names, plain_phrase
from engine.files import whole_file
from engine.model.model import Diffusion
from engine.model.sampling import generate, pixels_of
from engine.model.scorer import Scorer, open_scorer
from engine.model.vocabulary import Phrasebook, with_article
from jobs.editing.grid import draw_grid
from schemas.concept import Concept, ConceptKind
from schemas.manifest import ConceptScores
from schemas.numerics import Numerics

CONCEPTS = 12
"""Number of concepts that are drawn and scored, the first of the file."""
UNTOUCHED = 4
"""Kept objects that are drawn and scored along with the concepts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Scores of the images before and after."""

    scores: tuple[ConceptScores, ...] = ()
    untouched_change: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One prompt of the grid and the texts that its images are scored against."""

    prompt: str
    text: str
    replacement_text: str


def compare(
    model: Diffusion,
    weights: Mapping[str, torch.Tensor],
    *,
    concepts: Sequence[Concept],
    book: Phrasebook,
    images: int,
    numerics: Numerics,
    scorer: str,
    path: Path,
) -> Shown:
    """Draw `images` seeds of every row with the old and the new weights; write the grid to `path`.

    Both columns start from the same latents.
    """
    drawn = concepts[:CONCEPTS]
    rows = [_concept_row(concept, book) for concept in drawn] + _untouched(concepts, book)
    before_RCHW = _draw(model, rows, images, numerics)
    with replaced(model, weights):
        after_RCHW = _draw(model, rows, images, numerics)
    with whole_file(path) as file:
        draw_grid(
            [row.prompt for row in rows],
            before=_pixels(before_RCHW, images),
            after=_pixels(after_RCHW, images),
            file=file,
        )
    opened = open_scorer(scorer)
    before, after = (
        _scores(opened, rows, images_RCHW, images) for images_RCHW in (before_RCHW, after_RCHW)
    )
    return _shown(drawn, before, after)


def _scores(
    scorer: Scorer, rows: Sequence[_Row], images_RCHW: torch.Tensor, images: int
) -> list[list[float]]:
    """Return the mean score of each row's images against the row's two texts."""
    images_of_rows = cast("Sequence[torch.Tensor]", images_RCHW.split(images))
    texts_of_rows = [[row.text, row.replacement_text] for row in rows]
    return [
        cast("list[float]", scorer.score(row_CHW, texts).mean(0).tolist())
        for texts, row_CHW in zip(texts_of_rows, images_of_rows, strict=True)
    ]


def _concept_row(concept: Concept, book: Phrasebook) -> _Row:
    text, replacement = (
        plain_phrase(words, kind=concept.kind, book=book)
        for words in (concept.concept, concept.replacement_text)
    )
    return _Row(prompt=f"a photo of {text}", text=text, replacement_text=replacement)


def _untouched(concepts: Sequence[Concept], book: Phrasebook) -> list[_Row]:
    replacements = {concept.replacement_text for concept in concepts}
    names = kept_names(concepts, kind=ConceptKind.OBJECT, book=book)
    # A replacement is a kept name too, but its images are the concepts' new ones; other names show
    # more.
    names = [n for n in names if n not in replacements] or names
    step = max(1, len(names) // UNTOUCHED)
    texts = [with_article(name) for name in names[::step][:UNTOUCHED]]
    return [_Row(prompt=f"a photo of {text}", text=text, replacement_text=text) for text in texts]


def _draw(model: Diffusion, rows: Sequence[_Row], images: int, numerics: Numerics) -> torch.Tensor:
    prompts = [row.prompt for row in rows for _ in range(images)]
    return generate(model, prompts, seeds=list(range(images)) * len(rows), numerics=numerics)


def _pixels(images_RCHW: torch.Tensor, images: int) -> np.ndarray:
    bytes_RHWC = pixels_of(images_RCHW)
    return bytes_RHWC.reshape(-1, images, *bytes_RHWC.shape[1:])


def _shown(
    concepts: Sequence[Concept], before: list[list[float]], after: list[list[float]]
) -> Shown:
    scores = tuple(
        ConceptScores(
            concept=concept.concept,
            replacement=concept.replacement_text,
            kind=concept.kind.value,
            concept_before=old[0],
            concept_after=new[0],
            replacement_before=old[1],
            replacement_after=new[1],
        )
        for concept, old, new in zip(concepts, before, after, strict=False)
    )
    pairs = list(zip(before, after, strict=True))[len(concepts) :]
    changes = [new[0] - old[0] for old, new in pairs]
    return Shown(scores=scores, untouched_change=sum(changes) / len(changes) if changes else None)
