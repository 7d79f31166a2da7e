"""The base of families with a diffusion transformer.

Shapes: R rows, C channels, h x w latent, H x W pixels.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import diffusers
import torch

from engine.model.model import Family
from engine.model.weight_files import PartError

if TYPE_CHECKING:
    from engine.model.model import Diffusion


class TransformerFamily(Family):
    """Pipelines whose denoiser is a transformer over the patches of a VAE's latents."""

    denoiser = "transformer"

    def assemble(self, parts: Mapping[str, Any], *, settings: Mapping[str, Any]) -> Any:
        """Return the pipeline of the parts alone, without an image encoder."""
        return getattr(diffusers, self.pipeline)(**parts)

    def decode(self, model: "Diffusion", x_RChw: torch.Tensor) -> torch.Tensor:
        """Return images_RCHW in [0, 1] of latents that the VAE's config may say to shift."""
        config = model.vae.config
        shift = (config.get("shift_factor") or 0.0) * config.scaling_factor
        return super().decode(model, x_RChw + shift)


def check_latent(vae: Any, *, reads: int) -> None:
    """Raise PartError if the transformer reads other channels than the VAE's latents have."""
    if vae.config.latent_channels != reads:
        raise PartError(
            f"its transformer reads latents of {reads} channels where its vae has latent_channels "
            f"= {vae.config.latent_channels}: dqf opens no inpainting and no image-to-image models"
        )


def check_width(networks: Mapping[str, Any], part: str, *, gives: int, reads: int) -> None:
    """Raise PartError if the transformer reads another width than a text encoder gives."""
    if gives != reads:
        raise PartError(f"its transformer reads {reads} numbers of {part}, which gives {gives}")


def shifted(scheduler: Any, *, tokens: int, most: float) -> float:
    """Return mu, by which flow matching shifts its steps at that many image tokens.

    A line through two points of the scheduler's config (Esser et al. 2024, section 5.3.2); `most`
    is the pipeline's default of its upper end.
    """
    config = scheduler.config
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, top = config.get("base_shift", 0.5), config.get("max_shift", most)
    slope = (top - base) / (high - low)
    return tokens * slope + base - slope * low
