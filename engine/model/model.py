"""A model, and its family: all that differs between architectures.

Shapes: R rows, L token positions, D text width, P pooled width, C channels, h x w latent, H x W
pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from engine.model.tokens import tokenize


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoder:
    """A text encoder of a model."""

    name: str
    """Its part of the pipeline, the first word of its components' names: `text_encoder`."""
    module: nn.Module
    tokenizer: Any = None
    """None in a skeleton."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """The UNet's conditioning on captions, one row per caption."""

    text_RLD: torch.Tensor
    """Rows for cross-attention: `encoder_hidden_states`."""
    pooled_RP: torch.Tensor | None = None
    """SDXL: the second encoder's pooled embedding."""

    def __len__(self) -> int:
        return len(self.text_RLD)

    def take(self, rows: Sequence[int]) -> "Conditioning":
        """Return the conditioning of the given rows, in that order."""
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
    """The pipelines of one architecture; each family has one stateless instance."""

    pipeline: str
    """The diffusers pipeline class that `model_index.json` names."""
    networks: Mapping[str, type]
    """The class of each part that holds weights."""
    encoders: tuple[tuple[str, str], ...] = (("text_encoder", "tokenizer"),)
    """The parts that are text encoders, each with the part of its tokenizer."""

    @abstractmethod
    def check_settings(self, networks: Mapping[str, Any]) -> None:
        """Raise PartError if a part has a setting that the pipeline reads and dqf does not honor.

        `networks` are the parts' networks, with or without weights.
        """

    @abstractmethod
    def assemble(self, parts: Mapping[str, Any], *, settings: Mapping[str, Any]) -> Any:
        """Return the diffusers pipeline of opened parts; `settings` are those of its index."""

    def prepare_tokenizer(self, tokenizer: Any) -> Any:
        """Return a tokenizer that reads captions as the pipeline does."""
        return tokenizer

    def text_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype of the text encoders of a UNet of that dtype."""
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
        """Return the UNet's arguments besides latents, timestep and text rows.

        `pixels` are the image's height and width.
        """
        return {}

    def decode(self, model: "Diffusion", x_RChw: torch.Tensor) -> torch.Tensor:
        """Return images_RCHW in [0, 1], float32 on the model's device."""
        vae = model.vae
        images_RCHW = vae.decode(x_RChw / vae.config.scaling_factor, return_dict=False)[0]
        return (images_RCHW / 2 + 0.5).clamp(0, 1).float()


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """A model's networks, built from their configs on the meta device: shapes without weights."""

    name: str
    family: Family
    encoders: tuple[TextEncoder, ...]
    unet: Any

    @property
    def text_encoder(self) -> nn.Module:
        """The first text encoder."""
        return self.encoders[0].module


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """An opened text-to-image model, in evaluation mode."""

    name: str
    family: Family
    encoders: tuple[TextEncoder, ...]
    """Text encoders with their tokenizers, in the pipeline's order."""
    unet: Any
    vae: Any
    """None where the UNet works on pixels."""
    scheduler: Any
    """A template; each run takes a fresh copy from `new_scheduler`."""
    device: torch.device
    dtype: torch.dtype
    """Type of the UNet and the text encoders; noise and the VAE stay in float32."""
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Settings of the pipeline, from `model_index.json`."""

    @property
    def tokenizer(self) -> Any:
        """The first text encoder's tokenizer."""
        return self.encoders[0].tokenizer

    @property
    def text_encoder(self) -> nn.Module:
        """The first text encoder."""
        return self.encoders[0].module

    def token_ids(self, captions: Sequence[str]) -> list[torch.Tensor]:
        """Return each text encoder's padded token ids of the captions, ids_RL."""
        return [tokenize(e.tokenizer, captions).to(self.device) for e in self.encoders]

    def latent_shape(self, *, height: int | None, width: int | None) -> tuple[int, int, int]:
        """Return channels, height and width of a latent for an image of so many pixels.

        None: the model's own size.
        """
        size = self.unet.config.sample_size
        own_height, own_width = (size, size) if isinstance(size, int) else size
        factor = self.family.vae_factor(self)
        return (
            self.unet.config.in_channels,
            own_height if height is None else height // factor,
            own_width if width is None else width // factor,
        )


def embedding_sigma(text_encoder: nn.Module) -> float:
    """Return the standard deviation of all entries of the token embedding table."""
    return float(token_embedding(text_encoder).weight.float().std())


def token_embedding(text_encoder: nn.Module) -> nn.Embedding:
    """Return the text encoder's token embedding, the module that its forward pass calls.

    T5 shares one table between two modules, and `get_input_embeddings` returns the unused one.
    """
    encoder: Any = getattr(text_encoder, "encoder", None)
    return getattr(encoder, "embed_tokens", None) or text_encoder.get_input_embeddings()  # pyright: ignore
