"""Stable Diffusion 1.x and 2.x, its distillates and emoji-sd: one CLIP text encoder, a VAE.

Version 2 differs in its configs alone: OpenCLIP's text encoder, padding with id 0 and v-prediction,
which the scheduler undoes. SD-Turbo differs in its weights alone: one to four steps at guidance 1.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from engine.families.family import Conditioning, Family

if TYPE_CHECKING:
    from engine.models import Diffusion, Skeleton


class StableDiffusion(Family):
    """`StableDiffusionPipeline`."""

    pipeline = "StableDiffusionPipeline"

    def open_pipeline(self, source: str, **options: Any) -> Any:
        """Return the pipeline without its safety checker."""
        return getattr(diffusers, self.pipeline).from_pretrained(
            source, safety_checker=None, requires_safety_checker=False, **options
        )

    def text_skeleton(self, part: str, config: dict[str, Any]) -> nn.Module:
        """Return CLIP's text model."""
        return CLIPTextModel(CLIPTextConfig.from_dict(config))

    def encode(self, model: "Diffusion | Skeleton", ids: Sequence[torch.Tensor]) -> Conditioning:
        """Return the text encoder's last hidden state."""
        (ids_RL,) = ids
        return Conditioning(text_RLD=model.text_encoder(ids_RL)[0])


class LatentConsistency(StableDiffusion):
    """`LatentConsistencyModelPipeline`: a UNet that reads the guidance scale (Luo et al. 2023)."""

    pipeline = "LatentConsistencyModelPipeline"
