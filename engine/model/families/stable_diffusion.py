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

from engine.model.conditioning import Conditioning
from engine.model.families.unets import UNetFamily
from engine.model.settings import LATENT, Allowed, check_channels, check_text, refuse_settings
from engine.model.weight_files import PartError

if TYPE_CHECKING:
    from engine.model.model import Diffusion, Skeleton

SETTINGS: Allowed = {**LATENT, ("text_encoder", "use_attention_mask"): (None, False)}


class StableDiffusion(UNetFamily):
    """`StableDiffusionPipeline`."""

    pipeline = "StableDiffusionPipeline"
    networks = MappingProxyType(
        {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel, "vae": AutoencoderKL}
    )

    def check_settings(self, networks: Mapping[str, Any]) -> None:
        """Refuse text masks, class labels, conditions on images, and channels besides the
        latent."""
        refuse_settings(networks, SETTINGS)
        check_channels(networks)
        check_text(networks, [part for part, _ in self.encoders])

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
    scaling = frozenset({"init_noise_sigma"})

    def check_settings(self, networks: Mapping[str, Any]) -> None:
        """Refuse what Stable Diffusion's does, and a UNet that reads no guidance scale."""
        super().check_settings(networks)
        if networks["unet"].config.time_cond_proj_dim is None:
            raise PartError(
                "its unet has time_cond_proj_dim = None, and the pipeline of latent consistency "
                "models gives it the guidance scale: name StableDiffusionPipeline in its index"
            )
