"""Stable Diffusion 1.x and 2.x, its distillates and emoji-sd: one CLIP text encoder, a VAE.

Version 2 differs in its configs alone: OpenCLIP's text encoder, padding with id 0 and v-prediction,
which the scheduler undoes. SD-Turbo differs in its weights alone: one to four steps at guidance 1.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from engine.model.model import Conditioning, Family

if TYPE_CHECKING:
    from engine.model.model import Diffusion, Skeleton


class StableDiffusion(Family):
    """`StableDiffusionPipeline`."""

    pipeline = "StableDiffusionPipeline"
    networks = MappingProxyType(
        {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel, "vae": AutoencoderKL}
    )

    def assemble(self, parts: Mapping[str, Any], *, settings: Mapping[str, Any]) -> Any:
        """Return the pipeline without its safety checker."""
        return getattr(diffusers, self.pipeline)(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )

    def encode(self, model: "Diffusion | Skeleton", ids: Sequence[torch.Tensor]) -> Conditioning:
        """Return the text encoder's last hidden state."""
        (ids_RL,) = ids
        return Conditioning(text_RLD=model.text_encoder(ids_RL)[0])


class LatentConsistency(StableDiffusion):
    """`LatentConsistencyModelPipeline`: a UNet that reads the guidance scale (Luo et al. 2023)."""

    pipeline = "LatentConsistencyModelPipeline"
