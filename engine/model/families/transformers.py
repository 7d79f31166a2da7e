"""The base of families with a diffusion transformer."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import diffusers
import numpy as np
import torch

from engine.model.hooks import Side
from engine.model.model import Family
from engine.model.sites import NetworkSite, whole
from engine.model.weight_files import PartError
from schemas.component import Kind

if TYPE_CHECKING:
    from engine.model.model import Diffusion, Skeleton


class TransformerFamily(Family):
    """Pipelines whose denoiser is a transformer over the patches of a VAE's latents."""

    denoiser = "transformer"
    scaling = frozenset()
    own_cells: ClassVar[int | None] = None
    """Height and width of the pipeline's own latents, where the transformer's config says nothing
    of them (the pipelines' `default_sample_size`)."""

    def assemble(self, parts: Mapping[str, Any], *, settings: Mapping[str, Any]) -> Any:
        """Return the pipeline of the parts alone, without an image encoder."""
        return getattr(diffusers, self.pipeline)(**parts)

    def patch_size(self, denoiser: Any) -> int:
        """Return the cells along a side of an image token."""
        return denoiser.config.patch_size

    def latent_size(self, model: "Diffusion | Skeleton") -> tuple[int, int]:
        """Return the pipeline's own size."""
        cells = self.own_cells
        return super().latent_size(model) if cells is None else (cells, cells)

    def predicted_channels(self, denoiser: Any) -> int:
        """Return the latents': `predict` leaves out a learned variance."""
        return self.latent_channels(denoiser)


def with_shift(vae: Any, x_RChw: torch.Tensor) -> torch.Tensor:
    """Return latents that `Family.decode` scales, of a VAE whose config says to shift them too."""
    return x_RChw + (vae.config.get("shift_factor") or 0.0) * vae.config.scaling_factor


def dead_modulation(path: str, module: Any) -> NetworkSite:
    """Return the site of a modulation that knows the timestep and no text, which is dead."""
    return whole(path, module, Kind.MODULATION, 0, side=Side.OUTPUTS, is_dead=True)


def sigmas_and_shift(scheduler: Any, *, steps: int, tokens: int) -> dict[str, Any]:
    """Return sigmas from 1 to 1 / steps, and their shift at that many image tokens, as pipelines of
    flow matching give them to `set_timesteps`."""
    sigmas = np.linspace(1.0, 1 / steps, steps)
    return {"sigmas": sigmas, "mu": shifted(scheduler, tokens=tokens, most=1.15)}


def check_latent(vae: Any, *, reads: int) -> None:
    """Raise PartError if the transformer reads other channels than the VAE's latents have."""
    if vae.config.latent_channels != reads:
        raise PartError(
            f"its transformer reads latents of {reads} channels where its vae has latent_channels "
            f"= {vae.config.latent_channels}: dqf opens no inpainting and no image-to-image models"
        )


def check_given(networks: Mapping[str, Any], *channels: int) -> None:
    """Raise PartError if the transformer gives other numbers of channels than `channels`."""
    config = networks["transformer"].config
    if config.out_channels not in (None, *channels):
        wanted = " or ".join(map(str, channels))
        raise PartError(
            f"its transformer has the setting out_channels = {config.out_channels} where its "
            f"latents need {wanted}"
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
