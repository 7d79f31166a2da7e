"""What a model family says of its pipelines: all that differs between architectures is here.

Shapes: R rows, L token positions, D text width, P pooled width, C channels, h x w latent, H x W
pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from engine.model.opening import Diffusion, Skeleton


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoder:
    """One of a model's text encoders."""

    name: str
    """Its part of the pipeline, which its components' names begin with: `text_encoder`."""
    module: nn.Module
    tokenizer: Any = None
    """None in a skeleton."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """What the UNet is told of the captions, one row a caption."""

    text_RLD: torch.Tensor
    """Rows for cross-attention: `encoder_hidden_states`."""
    pooled_RP: torch.Tensor | None = None
    """SDXL: the second encoder's pooled embedding."""

    def __len__(self) -> int:
        return len(self.text_RLD)

    def take(self, rows: Sequence[int]) -> "Conditioning":
        """Return the conditioning of those rows, in that order."""
        index = list(rows)
        pooled = None if self.pooled_RP is None else self.pooled_RP[index]
        return Conditioning(text_RLD=self.text_RLD[index], pooled_RP=pooled)


def joined(parts: Sequence[Conditioning]) -> Conditioning:
    """Return the rows of all parts, one after another."""
    pooled = [part.pooled_RP for part in parts if part.pooled_RP is not None]
    return Conditioning(
        text_RLD=torch.cat([part.text_RLD for part in parts]),
        pooled_RP=torch.cat(pooled) if pooled else None,
    )


class Family(ABC):
    """The pipelines of one kind; one instance a family, without state."""

    pipeline: str
    """The diffusers pipeline class that `model_index.json` names."""
    networks: Mapping[str, type]
    """The class of each part that holds weights."""
    encoders: tuple[tuple[str, str], ...] = (("text_encoder", "tokenizer"),)
    """The parts that are text encoders, each with its tokenizer's."""

    @abstractmethod
    def assemble(self, parts: Mapping[str, Any], *, settings: Mapping[str, Any]) -> Any:
        """Return the diffusers pipeline of opened parts; `settings` are those of its index."""

    def prepare_tokenizer(self, tokenizer: Any) -> Any:
        """Return a tokenizer that reads captions as the pipeline has them read."""
        return tokenizer

    def text_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype of the text encoders beside a UNet of that dtype."""
        return dtype

    @abstractmethod
    def encode(self, model: "Diffusion | Skeleton", ids: Sequence[torch.Tensor]) -> Conditioning:
        """Return the conditioning of token ids, one ids_RL for each text encoder.

        Hooks on the encoders' modules take effect.
        """

    def run_encoder(self, encoder: nn.Module, ids_RL: torch.Tensor) -> Any:
        """Return the output of one text encoder, run as the pipeline runs it."""
        return encoder(ids_RL)

    def unconditional(self, model: "Diffusion", prompt: str) -> Conditioning:
        """Return the one row of the negative prompt."""
        return self.encode(model, model.token_ids([prompt]))

    def vae_factor(self, model: "Diffusion") -> int:
        """Return the pixels of one latent cell along a side."""
        return 2 ** (len(model.vae.config.block_out_channels) - 1)

    def unet_options(
        self, model: "Diffusion | Skeleton", cond: Conditioning, *, pixels: tuple[int, int]
    ) -> dict[str, Any]:
        """Return what the UNet takes besides latents, timestep and text rows.

        `pixels` are the image's height and width.
        """
        return {}

    def decode(self, model: "Diffusion", x_RChw: torch.Tensor) -> torch.Tensor:
        """Return images_RCHW in [0, 1], float32 on the model's device."""
        vae = model.vae
        images_RCHW = vae.decode(x_RChw / vae.config.scaling_factor, return_dict=False)[0]
        return (images_RCHW / 2 + 0.5).clamp(0, 1).float()
