"""Forced choices by the scorer: which of several captions is nearest to an image.

Shapes: N images, O options, D embedding (suffixes `_NO`, `_ND`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from engine.reference.scorer import load_scorer
from engine.reference.vocabulary import (
    ACTIONS,
    ALIKE,
    COLORS,
    COUNTS,
    OBJECTS,
    PERSON,
    STYLES,
    VIEWPOINTS,
    Scene,
    caption,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A forced choice: the attribute that the options replace."""

    attribute: str
    options: tuple[str, ...]

    def is_asked_of(self, scene: Scene) -> bool:
        """Return whether the scene's own value is an option, and the other options can be drawn."""
        if self.attribute == "viewpoint" and scene.object in ALIKE:
            return False
        return getattr(scene, self.attribute) in self.options

    def captions(self, scene: Scene) -> list[str]:
        """Return the scene's caption with each option in turn; a person keeps its action."""
        varied = [replace(scene, **{self.attribute: option}) for option in self.options]
        return [caption(v if v.object == PERSON else replace(v, action="")) for v in varied]


_TINTS = tuple(color for color in COLORS if color != "natural")
QUESTIONS = {
    "object": Question(attribute="object", options=(*OBJECTS, PERSON)),
    "style": Question(attribute="style", options=tuple(STYLES)),
    "color": Question(attribute="color", options=_TINTS),
    "color or none": Question(attribute="color", options=tuple(COLORS)),
    "viewpoint": Question(attribute="viewpoint", options=tuple(VIEWPOINTS)),
    "count": Question(attribute="count", options=COUNTS),
    "action": Question(attribute="action", options=tuple(ACTIONS)),
}
"""Name of each forced choice about scenes of one object."""
PAIR_QUESTIONS = {
    "first object": Question(attribute="object", options=tuple(OBJECTS)),
    "second object": Question(attribute="second", options=tuple(OBJECTS)),
    "first color": Question(attribute="color", options=_TINTS),
    "second color": Question(attribute="second_color", options=_TINTS),
}
"""Name of each forced choice about scenes of two objects."""


class Judge:
    """The scorer in a folder, as any open_clip user opens it."""

    def __init__(self, folder: Path) -> None:
        self.model, self.preprocess, self.tokenizer = load_scorer(folder)

    @torch.no_grad()
    def embed_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return unit embeddings of the images."""
        pixels = torch.stack([self.preprocess(image) for image in images])
        parts = [self.model.encode_image(p) for p in pixels.split(64)]
        return F.normalize(torch.cat(parts), dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        """Return unit embeddings of the captions, each distinct one embedded once."""
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        parts = [self.model.encode_text(ids) for ids in self.tokenizer(list(rows)).split(256)]
        embedding_ND = F.normalize(torch.cat(parts), dim=-1)
        return embedding_ND[[rows[text] for text in texts]]

    def right(
        self, image_ND: torch.Tensor, scenes: Sequence[Scene], question: Question
    ) -> torch.Tensor:
        """Return whether each image's nearest option is its scene's, `(N,)` of bool."""
        texts = [text for scene in scenes for text in question.captions(scene)]
        text_NOD = self.embed_texts(texts).view(len(scenes), len(question.options), -1)
        best_N = torch.einsum("nd,nod->no", image_ND, text_NOD).argmax(1)
        values = [getattr(scene, question.attribute) for scene in scenes]
        return best_N == torch.tensor([question.options.index(value) for value in values])


def answers(
    judge: Judge,
    images: Sequence[Image.Image],
    scenes: Sequence[Scene],
    *,
    questions: dict[str, Question] = QUESTIONS,
) -> dict[str, torch.Tensor]:
    """Return right or wrong by question, over the scenes that it is asked of (at least one)."""
    image_ND = judge.embed_images(images)
    by_question = {}
    for name, question in questions.items():
        rows = [row for row, scene in enumerate(scenes) if question.is_asked_of(scene)]
        if rows:
            by_question[name] = judge.right(image_ND[rows], [scenes[row] for row in rows], question)
    return by_question


def share(right_N: torch.Tensor) -> float:
    """Return the share of true values."""
    return float(right_N.float().mean())


def to_images(pixel_NCHW: torch.Tensor) -> list[Image.Image]:
    """Return uint8 images as PIL's."""
    return [Image.fromarray(np.ascontiguousarray(p.permute(1, 2, 0).numpy())) for p in pixel_NCHW]
