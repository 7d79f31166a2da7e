"""A model, and its family: all that differs between architectures.

Shapes: R rows, L token positions, D text width, P pooled width, C channels, h x w latent, H x W
pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from engine.model.conditioning import Conditioning
from engine.model.sites import NetworkSite
from engine.model.tokens import tokenize


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoder:
    """A text encoder of a model."""

    name: str
    """Its part of the pipeline, the first word of its components' names: `text_encoder`."""
    module: nn.Module
    tokenizer: Any = None
    """None in a skeleton."""


class Family(ABC):
    """The pipelines of one architecture; each family has one stateless instance."""

    pipeline: ClassVar[str]
    """The diffusers pipeline class that `model_index.json` names."""
    denoiser: ClassVar[str]
    """The part that predicts the noise, the first word of its components' names: `unet` or
    `transformer`."""
    networks: ClassVar[Mapping[str, type]]
    """The class of each part that holds weights."""
    optional: ClassVar[frozenset[str]] = frozenset()
    """Parts that a pipeline may lack: a text encoder, with its tokenizer."""
    encoders: ClassVar[tuple[tuple[str, str], ...]] = (("text_encoder", "tokenizer"),)
    """The parts that are text encoders, each with the part of its tokenizer."""
    has_pooled: ClassVar[bool] = False
    """Whether the denoiser reads a pooled embedding of the caption besides the text rows."""
    least_steps: ClassVar[int] = 1
    """Smallest number of steps at which the pipeline steps as it does with more."""
    scaling: ClassVar[frozenset[str]] = frozenset({"init_noise_sigma", "scale_model_input"})
    """The scheduler's ways of scaling latents that the pipeline uses."""
    masks_padding: ClassVar[bool] = False
    """Whether no token attends to padding in `run_encoder`, so that a caption may be cut after its
    last token."""

    padding_sides: ClassVar[frozenset[str]] = frozenset({"right"})
    """Where the tokenizers may pad: after a text, or `left` of it."""
    reads_padding: ClassVar[bool] = True
    """Whether the denoiser computes the text rows of padding too."""
    has_processor: ClassVar[bool] = False
    """Whether the tokenizers are those of processors, which read images too."""

    @abstractmethod
    def check_settings(self, networks: Mapping[str, Any]) -> None:
        """Raise PartError if a part has a setting that the pipeline reads and dqf does not honor.

        `networks` are the parts' networks, with or without weights.
        """

    @abstractmethod
    def assemble(self, parts: Mapping[str, Any], *, settings: Mapping[str, Any]) -> Any:
        """Return the diffusers pipeline of opened parts; `settings` are those of its index."""

    def length_of(self, part: str, denoiser: Any) -> int | None:
        """Return the token positions of a caption in a text encoder; None: its tokenizer says it.

        `denoiser` is the denoiser's network, with or without weights.
        """
        return None

    def prepare_tokenizer(self, tokenizer: Any, *, part: str, denoiser: Any) -> Any:
        """Return the tokenizer of a text encoder that reads captions as the pipeline does."""
        return tokenizer

    def read_layers(self, part: str, layers: int) -> int:
        """Return how many of a text encoder's layers the denoiser reads, from the first on.

        Components of the others are dead: what they compute reaches no text row and no pooled
        embedding.
        """
        return layers

    def text_dtype(self, dtype: torch.dtype, *, part: str) -> torch.dtype:
        """Return the dtype of a text encoder where the denoiser has that dtype."""
        return dtype

    @abstractmethod
    def sites(self, denoiser: Any) -> Iterator[NetworkSite]:
        """Yield the denoiser's components in its order of execution."""

    @abstractmethod
    def encode(self, model: "Diffusion | Skeleton", ids: Sequence[torch.Tensor]) -> Conditioning:
        """Return the conditioning of token ids, one ids_RL for each text encoder.

        Hooks on the encoders' modules take effect.
        """

    def run_encoder(self, encoder: TextEncoder, ids_RL: torch.Tensor) -> Any:
        """Return the output of one text encoder, run as the pipeline runs it."""
        return encoder.module(ids_RL)

    def text_projection_rows(self, denoiser: Any, text_RLD: torch.Tensor) -> torch.Tensor:
        """Return the text rows as the text projection reads them: after their norm."""
        return text_RLD

    def cross_attention_rows(self, denoiser: Any, text_RLD: torch.Tensor) -> torch.Tensor:
        """Return the text rows as every cross-attention reads them: after their projection."""
        return text_RLD

    def has_unconditional(self, model: "Diffusion | Skeleton") -> bool:
        """Return whether guidance above 1 runs the denoiser on a negative prompt too.

        A denoiser that embeds the guidance scale, or was distilled to none, does not.
        """
        return not self.embeds_guidance(model.denoiser)

    def embeds_guidance(self, denoiser: Any) -> bool:
        """Return whether the denoiser reads the guidance scale as an input."""
        return False

    def unconditional(self, model: "Diffusion", prompt: str) -> Conditioning:
        """Return the one row of the negative prompt."""
        return self.encode(model, model.token_ids([prompt]))

    @abstractmethod
    def predict(
        self,
        model: "Diffusion | Skeleton",
        x_RChw: torch.Tensor,
        t: torch.Tensor,
        cond: Conditioning,
        *,
        guidance: float,
        pixels: tuple[int, int],
    ) -> torch.Tensor:
        """Return the denoiser's prediction for latents, in their layout, as the scheduler reads it.

        It may have more channels than the latents: a learned variance. `x_RChw` are the latents
        of this step, the denoiser's first positional argument gets a row for each; `t` is the
        scheduler's timestep, without dimensions or one for each row; `pixels` are the image's
        height and width.
        """

    def guide(
        self, uncond: torch.Tensor, cond: torch.Tensor, *, guidance: float, channels: int
    ) -> torch.Tensor:
        """Return eps_uncond + w (eps_cond - eps_uncond) (Ho and Salimans 2022).

        Channels after the first `channels` are a learned variance (DeepFloyd IF), taken from the
        conditional half.
        """
        mean = uncond[:, :channels] + guidance * (cond[:, :channels] - uncond[:, :channels])
        return torch.cat([mean, cond[:, channels:]], dim=1)

    def schedule(self, scheduler: Any, *, steps: int, tokens: int) -> dict[str, Any]:
        """Return the pipeline's arguments to `set_timesteps` besides the number of steps.

        `tokens` are those of the image, one for `patch_size` x `patch_size` cells of the latent.
        """
        return {}

    def vae_factor(self, vae: Any) -> int:
        """Return the pixels of one latent cell along a side; `vae` is None where there is none."""
        return 2 ** (len(vae.config.block_out_channels) - 1)

    def patch_size(self, denoiser: Any) -> int:
        """Return the latent cells along a side that the denoiser needs a multiple of."""
        return 1

    def most_cells(self, denoiser: Any) -> int | None:
        """Return the most latent cells along a side; None: there is no limit."""
        return None

    def latent_channels(self, denoiser: Any) -> int:
        """Return the channels of the latents that a scheduler steps."""
        return denoiser.config.in_channels

    def predicted_channels(self, denoiser: Any) -> int:
        """Return the channels that `predict` returns."""
        return denoiser.config.out_channels

    def latent_size(self, model: "Diffusion | Skeleton") -> tuple[int, int]:
        """Return the height and width of the model's own latents."""
        size = model.denoiser.config.sample_size
        return (size, size) if isinstance(size, int) else tuple(size)

    def decode(self, model: "Diffusion", x_RChw: torch.Tensor) -> torch.Tensor:
        """Return images_RCHW in [0, 1], float32 on the model's device."""
        vae = model.vae
        images_RCHW = vae.decode(x_RChw / vae.config.scaling_factor, return_dict=False)[0]
        return from_minus_one(images_RCHW)


def from_minus_one(images_RCHW: torch.Tensor) -> torch.Tensor:
    """Return images of [-1, 1], which a network gives, in [0, 1] and float32."""
    return (images_RCHW / 2 + 0.5).clamp(0, 1).float()


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """A model's networks, built from their configs on the meta device: shapes without weights."""

    name: str
    family: Family
    encoders: tuple[TextEncoder, ...]
    denoiser: Any
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Settings of the pipeline, from `model_index.json`."""

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
    denoiser: Any
    vae: Any
    """None where the denoiser works on pixels."""
    scheduler: Any
    """A template; each run takes a fresh copy from `new_scheduler`."""
    device: torch.device
    dtype: torch.dtype
    """Type of the denoiser and the text encoders; noise and the VAE stay in float32."""
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
        own_height, own_width = self.family.latent_size(self)
        factor = self.family.vae_factor(self.vae)
        return (
            self.family.latent_channels(self.denoiser),
            own_height if height is None else height // factor,
            own_width if width is None else width // factor,
        )


def embedding_sigma(text_encoder: nn.Module) -> float:
    """Return the standard deviation of all entries of the token embedding table, as the encoder
    reads them: Gemma's table is scaled."""
    table: Any = token_embedding(text_encoder)
    return float(table.weight.float().std()) * float(getattr(table, "embed_scale", 1.0))


def token_embedding(text_encoder: nn.Module) -> nn.Embedding:
    """Return the text encoder's token embedding, the module that its forward pass calls.

    T5 shares one table between two modules, and `get_input_embeddings` returns the unused one.
    """
    encoder: Any = getattr(text_encoder, "encoder", None)
    return getattr(encoder, "embed_tokens", None) or text_encoder.get_input_embeddings()  # pyright: ignore
