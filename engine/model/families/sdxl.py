"""Stable Diffusion XL and SDXL-Turbo: two CLIP text encoders, a pooled embedding, a VAE.

The text rows are each encoder's penultimate hidden state, one next to the other (Podell et al.
2023, section 2.1). So the first encoder's last layer tells the UNet nothing, and the second's
speaks through the pooled embedding alone.

Shapes: R rows, L token positions, D text width, P pooled width.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from engine.model.conditioning import Conditioning
from engine.model.families.clip import penultimate
from engine.model.families.unets import UNetFamily
from engine.model.settings import (
    LATENT,
    Allowed,
    check_channels,
    check_statistics,
    check_text,
    refuse_settings,
)
from engine.model.weight_files import PartError

if TYPE_CHECKING:
    from engine.model.model import Diffusion, Skeleton

TIME_IDS = 6
"""Numbers of the sizes that the UNet reads: original, crop, target; height and width each."""
SETTINGS: Allowed = {**LATENT, ("unet", "addition_embed_type"): ("text_time",)}


class StableDiffusionXL(UNetFamily):
    """`StableDiffusionXLPipeline`."""

    pipeline = "StableDiffusionXLPipeline"
    networks = MappingProxyType(
        {
            "text_encoder": CLIPTextModel,
            "text_encoder_2": CLIPTextModelWithProjection,
            "unet": UNet2DConditionModel,
            "vae": AutoencoderKL,
        }
    )
    encoders = (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"))
    has_pooled = True

    def read_layers(self, part: str, layers: int) -> int:
        """Return all layers, of the first encoder all but the last."""
        return layers - (part == "text_encoder")

    def check_settings(self, networks: Mapping[str, Any]) -> None:
        """Refuse what Stable Diffusion's does, and other conditions than pooled text and sizes."""
        refuse_settings(networks, SETTINGS)
        check_channels(networks)
        check_text(networks, [part for part, _ in self.encoders])
        _check_projection(networks)
        if _is_standardized(vae := networks["vae"].config):
            check_statistics(vae, channels=vae.latent_channels)

    def assemble(self, parts: Mapping[str, Any], *, settings: Mapping[str, Any]) -> Any:
        """Return the pipeline without its watermarker."""
        zeros = bool(settings.get("force_zeros_for_empty_prompt", True))
        return StableDiffusionXLPipeline(
            **parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False
        )

    def encode(self, model: "Diffusion | Skeleton", ids: Sequence[torch.Tensor]) -> Conditioning:
        """Return both encoders' penultimate hidden states, and the second's projected EOS row."""
        (first_RLD, _), (second_RLD, pooled_RP) = (
            penultimate(encoder.module, ids_RL)
            for encoder, ids_RL in zip(model.encoders, ids, strict=True)
        )
        return Conditioning(
            text_RLD=torch.cat([first_RLD, second_RLD], dim=-1), pooled_RP=pooled_RP
        )

    def unconditional(self, model: "Diffusion", prompt: str) -> Conditioning:
        """Return the one row of the negative prompt: zeros for none, if the pipeline says so."""
        cond = super().unconditional(model, prompt)
        if prompt or not model.settings.get("force_zeros_for_empty_prompt", True):
            return cond
        assert cond.pooled_RP is not None
        return Conditioning(
            text_RLD=torch.zeros_like(cond.text_RLD), pooled_RP=torch.zeros_like(cond.pooled_RP)
        )

    def unet_options(
        self, model: "Diffusion | Skeleton", cond: Conditioning, *, pixels: tuple[int, int]
    ) -> dict[str, Any]:
        """Return the pooled embedding and the time ids: original size, crop corner, target size."""
        assert cond.pooled_RP is not None
        time_ids = cond.text_RLD.new_tensor([*pixels, 0, 0, *pixels]).expand(len(cond), -1)
        return {"added_cond_kwargs": {"text_embeds": cond.pooled_RP, "time_ids": time_ids}}

    def decode(self, model: "Diffusion", x_RChw: torch.Tensor) -> torch.Tensor:
        """Return images_RCHW in [0, 1] of latents that the VAE's config may say to standardize."""
        config = model.vae.config
        if not _is_standardized(config):
            return super().decode(model, x_RChw)
        mean, std = (
            x_RChw.new_tensor(values)[:, None, None]
            for values in (config.latents_mean, config.latents_std)
        )
        return super().decode(model, x_RChw * std + mean * config.scaling_factor)


def _is_standardized(vae: Any) -> bool:
    """Return whether a VAE's config has the mean and deviation of its latents."""
    return vae.latents_mean is not None and vae.latents_std is not None


def _check_projection(networks: Mapping[str, Any]) -> None:
    """Raise PartError if the UNet reads a pooled embedding of another width (as the pipeline)."""
    unet, pooled = networks["unet"].config, networks["text_encoder_2"].config.projection_dim
    given = pooled + TIME_IDS * unet.addition_time_embed_dim
    if unet.projection_class_embeddings_input_dim != given:
        raise PartError(
            "its unet has projection_class_embeddings_input_dim = "
            f"{unet.projection_class_embeddings_input_dim} and is given {given} numbers: "
            "dqf opens no refiner"
        )
