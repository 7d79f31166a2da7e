"""Contrastive learning of captions and images, shared by the text encoder and the scorer.

A caption matches an image if every attribute it says is right, so one image has several right
captions of a batch. Batches are groups of one object in many styles, colours and viewpoints: the
negatives that a model of independent captions hardly ever sees.

Shapes: N images and captions, T tokens, D embedding, K copies (suffixes `_NCHW`, `_NT`, `_ND`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from engine.reference.captions import attributes, random_caption
from engine.reference.data import Pool, to_float

GROUP = 4
"""Images of one object that stand together in a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images with one caption each."""

    image_NCHW: torch.Tensor
    """In [-1, 1]."""
    texts: list[str]
    match_NN: torch.Tensor
    """Row image, column caption: 1 where the caption is right for the image."""


class Sampler:
    """Draws training batches of hard negatives from a pool."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.attribute_N4 = attributes(pool.combos)
        train = pool.train
        objects = self.attribute_N4[train, 0]
        self.rows = [train[objects == obj] for obj in objects.unique()]

    def draw(self, size: int, *, rng: torch.Generator) -> Batch:
        """A batch of `size` images: groups of GROUP combinations that share the object."""
        chosen = torch.randperm(len(self.rows), generator=rng)[: size // GROUP]
        rows = torch.cat([self._some(self.rows[int(i)], rng=rng) for i in chosen])
        copies = torch.randint(self.pool.image_NKCHW.shape[1], (len(rows),), generator=rng)
        captions = [random_caption(self.pool.combos[int(r)], rng) for r in rows]
        says_style_N = torch.tensor([said for _, said in captions])
        return Batch(
            image_NCHW=to_float(self.pool.image_NKCHW[rows, copies]),
            texts=[text for text, _ in captions],
            match_NN=matches(self.attribute_N4[rows], says_style_N=says_style_N),
        )

    def _some(self, rows: torch.Tensor, *, rng: torch.Generator) -> torch.Tensor:
        return rows[torch.randperm(len(rows), generator=rng)[:GROUP]]


def matches(attribute_N4: torch.Tensor, *, says_style_N: torch.Tensor) -> torch.Tensor:
    """`match_NN`, 1 where caption (column) and image (row) agree in all that the caption says."""
    same_NN4 = attribute_N4[:, None] == attribute_N4[None]
    same_NN4[:, :, 1] |= ~says_style_N[None]
    return same_NN4.all(-1).float()


def contrastive_loss(
    image_ND: torch.Tensor, text_ND: torch.Tensor, *, match_NN: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy both ways, probability shared by all that match (Khosla et al. 2020)."""
    logit_NN = scale * F.normalize(image_ND, dim=-1) @ F.normalize(text_ND, dim=-1).T
    by_image_NN = match_NN / match_NN.sum(1, keepdim=True)
    by_text_NN = match_NN / match_NN.sum(0, keepdim=True)
    return 0.5 * (
        F.cross_entropy(logit_NN, by_image_NN) + F.cross_entropy(logit_NN.T, by_text_NN.T)
    )
