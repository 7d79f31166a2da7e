"""DeepFloyd IF, stage I: T5's encoder, and a UNet over 64 x 64 pixels without a VAE.

One attention of the UNet reads the text and the pixels together, and the UNet's last three channels
are a variance, which the pipeline's own scheduler reads. The text also reaches the UNet's timestep
embedding, pooled: that path is not a component.

Shapes: R rows, L token positions, D text width, C channels, H x W pixels.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from diffusers import IFPipeline, UNet2DConditionModel
from transformers import T5EncoderModel

from engine.model.conditioning import Conditioning
from engine.model.families.t5 import lowering_tokenizer, run_masked, t5_dtype
from engine.model.families.unets import UNetFamily
from engine.model.model import TextEncoder, from_minus_one
from engine.model.settings import Allowed, check_text, refuse_settings

if TYPE_CHECKING:
    from engine.model.model import Diffusion, Skeleton

LENGTH = 77
"""Token positions that IF was trained on, though T5 has no limit (`IFPipeline.encode_prompt`)."""

SETTINGS: Allowed = {
    ("unet", "class_embed_type"): (None,),
    ("unet", "num_class_embeds"): (None,),
    ("unet", "addition_embed_type"): (None, "text"),
    ("unet", "encoder_hid_dim_type"): (None, "text_proj"),
    ("unet", "time_cond_proj_dim"): (None,),
    ("unet", "in_channels"): (3,),
    ("unet", "out_channels"): (6,),
}


class DeepFloydIF(UNetFamily):
    """`IFPipeline`."""

    pipeline = "IFPipeline"
    networks = MappingProxyType({"text_encoder": T5EncoderModel, "unet": UNet2DConditionModel})
    masks_padding = True

    def check_settings(self, networks: Mapping[str, Any]) -> None:
        """Refuse a guidance embedding, class labels, other channels than pixels and a variance."""
        refuse_settings(networks, SETTINGS)
        check_text(networks, ["text_encoder"])

    def assemble(self, parts: Mapping[str, Any], *, settings: Mapping[str, Any]) -> Any:
        """Return the pipeline without its safety checker and watermarker."""
        return IFPipeline(
            **parts,
            safety_checker=None,
            feature_extractor=None,
            watermarker=None,
            requires_safety_checker=False,
        )

    def length_of(self, part: str, denoiser: Any) -> int | None:
        """Return IF's length."""
        return LENGTH

    def prepare_tokenizer(self, tokenizer: Any, *, part: str, denoiser: Any) -> Any:
        """Return a tokenizer of IF's length that lowers and strips, as the pipeline does."""
        return lowering_tokenizer(tokenizer, length=LENGTH)

    def text_dtype(self, dtype: torch.dtype, *, part: str) -> torch.dtype:
        """Return float32 in place of float16, in which T5's feed-forward overflows."""
        return t5_dtype(dtype)

    def encode(self, model: "Diffusion | Skeleton", ids: Sequence[torch.Tensor]) -> Conditioning:
        """Return the encoder's last hidden state; no position attends to padding."""
        (ids_RL,) = ids
        text_RLD = self.run_encoder(model.encoders[0], ids_RL)[0]
        return Conditioning(text_RLD=text_RLD.to(model.denoiser.dtype))

    def run_encoder(self, encoder: TextEncoder, ids_RL: torch.Tensor) -> Any:
        """Return T5's output with a mask of the tokens that are not padding."""
        return run_masked(encoder.module, ids_RL)

    def vae_factor(self, vae: Any) -> int:
        """Return 1: there is no VAE."""
        return 1

    def decode(self, model: "Diffusion", x_RChw: torch.Tensor) -> torch.Tensor:
        """Return images_RCHW in [0, 1], which the UNet's pixels are in [-1, 1]."""
        return from_minus_one(x_RChw)
