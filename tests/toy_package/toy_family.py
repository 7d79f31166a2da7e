"""A package of its own that brings a model family: Stable Diffusion whose pipeline is a class of
its own and whose images are upside down."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from engine.model.families.stable_diffusion import StableDiffusion


class UpsideDownPipeline(StableDiffusionPipeline):
    """Draws every image of Stable Diffusion upside down."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Return the images, their lines in the other order."""
        output: Any = super().__call__(*args, **options)
        output.images = output.images[:, ::-1].copy()
        return output


class UpsideDown(StableDiffusion):
    """The family of that pipeline."""

    pipeline = "UpsideDownPipeline"

    def assemble(self, parts: Mapping[str, Any], *, settings: Mapping[str, Any]) -> Any:
        """Return the pipeline without its safety checker."""
        return UpsideDownPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )

    def decode(self, model: Any, x_RChw: torch.Tensor) -> torch.Tensor:
        """Return the images, their lines in the other order."""
        return super().decode(model, x_RChw).flip(-2)
