"""Contrastive learning of captions and images, shared by the text encoders and the scorer.

A caption matches an image if every attribute in it is right, so one image has several right
captions in a batch.

Shapes: N images and captions, A attributes, D embedding (suffixes `_NCHW`, `_NA`, `_NT`, `_ND`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from engine.reference.sampling import BROAD, Mix, related_scenes
from engine.reference.scenes import compose, random_placements
from engine.reference.wordings import attributes, matches, random_wording

GROUP = 4
"""Number of scenes in a batch that share their objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images with one caption each."""

    image_NCHW: torch.Tensor
    """Images in [-1, 1]."""
    texts: list[str]
    attribute_NA: torch.Tensor
    match_NN: torch.Tensor
    """Row image, column caption: 1 where the caption is right for the image."""


def draw_batch(
    sprites: torch.Tensor, size: int, *, mix: Mix = BROAD, rng: torch.Generator
) -> Batch:
    """Return `size` images and captions: groups of GROUP scenes that share their objects."""
    scenes = related_scenes(size, group=GROUP, mix=mix, rng=rng)
    wordings = [random_wording(scene, rng) for scene in scenes]
    attribute_NA = attributes(scenes)
    return Batch(
        image_NCHW=compose(sprites, scenes, random_placements(size, rng=rng)),
        texts=[wording.text for wording in wordings],
        attribute_NA=attribute_NA,
        match_NN=matches(attribute_NA, wordings),
    )


def contrastive_loss(
    image_ND: torch.Tensor, text_ND: torch.Tensor, *, match_NN: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Return the cross-entropy in both directions, shared by all matches (Khosla et al. 2020).

    It is computed in float32: bfloat16 logits of 100 would be off by a quarter.
    """
    with torch.autocast("cpu", enabled=False):
        image_ND, text_ND = (F.normalize(e.float(), dim=-1) for e in (image_ND, text_ND))
        logit_NN = scale * image_ND @ text_ND.T
    by_image_NN = match_NN / match_NN.sum(1, keepdim=True)
    by_text_NN = match_NN / match_NN.sum(0, keepdim=True)
    return 0.5 * (
        F.cross_entropy(logit_NN, by_image_NN) + F.cross_entropy(logit_NN.T, by_text_NN.T)
    )
