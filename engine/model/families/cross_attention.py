"""PixArt alpha and Sigma: a transformer whose cross-attention reads T5's rows.

The text enters by a projection alone, and every block's cross-attention reads the same rows. What
modulates the blocks (`adaln_single`) knows the timestep and the size, and no text.

Shapes: R rows, L token positions, D text width, C channels, h x w latent.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel
from transformers import T5EncoderModel

from engine.model.conditioning import Conditioning
from engine.model.families.t5 import lowering_tokenizer, padding_mask, run_masked, t5_dtype
from engine.model.families.transformers import (
    TransformerFamily,
    check_given,
    check_latent,
    check_width,
    dead_modulation,
)
from engine.model.model import Family, TextEncoder
from engine.model.settings import Allowed, refuse_settings
from engine.model.sites import NetworkSite, whole, with_heads
from schemas.component import Kind

if TYPE_CHECKING:
    from engine.model.model import Diffusion, Skeleton

SIZED = 128
"""The `sample_size` at which PixArt-alpha's pipeline gives the image's size to the transformer."""
SETTINGS: Allowed = {("vae", "out_channels"): (3,)}


class CrossAttentionFamily(TransformerFamily):
    """Pipelines whose blocks have self-attention, cross-attention and a feed-forward."""

    masks_padding = True
    modulation: ClassVar[str]
    """The module that modulates the blocks by the timestep, and by no text."""

    def text_dtype(self, dtype: torch.dtype, *, part: str) -> torch.dtype:
        """Return float32 in place of float16, whose range T5's feed-forward and Gemma exceed."""
        return t5_dtype(dtype)

    def run_encoder(self, encoder: TextEncoder, ids_RL: torch.Tensor) -> Any:
        """Return the text encoder's output with a mask of the tokens that are not padding."""
        return run_masked(encoder.module, ids_RL)

    def sites(self, denoiser: Any) -> Iterator[NetworkSite]:
        """Yield the modulation, which is dead, the text's projection, and of every block heads,
        self-attention (attn1), cross-attention (attn2), feed-forward and the image's tokens."""
        yield dead_modulation(self.modulation, getattr(denoiser, self.modulation))
        projection = getattr(denoiser, "caption_projection", None)
        if projection is not None:
            yield whole("caption_projection", projection, Kind.TEXT_PROJECTION, 0)
        for layer, block in enumerate(denoiser.transformer_blocks):
            yield from cross_attention_sites(f"transformer_blocks.{layer}", block, layer)


class PixArtAlpha(CrossAttentionFamily):
    """`PixArtAlphaPipeline` (Chen et al. 2023); captions are lowered, not cleaned further."""

    pipeline = "PixArtAlphaPipeline"
    scaling = Family.scaling
    networks = MappingProxyType(
        {
            "text_encoder": T5EncoderModel,
            "transformer": PixArtTransformer2DModel,
            "vae": AutoencoderKL,
        }
    )
    modulation = "adaln_single"
    length: ClassVar[int] = 120
    """Token positions of a caption."""
    least_steps = 2  # after one, the pipeline takes another of the scheduler's results

    def check_settings(self, networks: Mapping[str, Any]) -> None:
        """Refuse another width of text, channels besides the latent, and another padding."""
        refuse_settings(networks, SETTINGS)
        config = networks["transformer"].config
        check_latent(networks["vae"], reads=config.in_channels)
        check_given(networks, config.in_channels, 2 * config.in_channels)
        if networks["transformer"].use_additional_conditions and config.sample_size != SIZED:
            refuse_settings(networks, {("transformer", "sample_size"): (SIZED,)})
        reads = config.caption_channels or config.cross_attention_dim
        width = networks["text_encoder"].config.d_model
        check_width(networks, "text_encoder", gives=width, reads=reads)

    def length_of(self, part: str, denoiser: Any) -> int | None:
        """Return the pipeline's length."""
        return self.length

    def prepare_tokenizer(self, tokenizer: Any, *, part: str, denoiser: Any) -> Any:
        """Return a tokenizer of the pipeline's length that lowers and strips."""
        return lowering_tokenizer(tokenizer, length=self.length)

    def cross_attention_rows(self, denoiser: Any, text_RLD: torch.Tensor) -> torch.Tensor:
        """Return the projected rows."""
        projection = denoiser.caption_projection
        return text_RLD if projection is None else projection(text_RLD)

    def encode(self, model: "Diffusion | Skeleton", ids: Sequence[torch.Tensor]) -> Conditioning:
        """Return the encoder's last hidden state, and the mask that the cross-attentions read."""
        (ids_RL,) = ids
        text_RLD = self.run_encoder(model.encoders[0], ids_RL)[0]
        return Conditioning(
            text_RLD=text_RLD.to(model.denoiser.dtype),
            mask_RL=padding_mask(model.text_encoder, ids_RL),
        )

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
        """Return the transformer's output without the learned variance, which no pipeline reads."""
        transformer = model.denoiser
        output = transformer(
            x_RChw.to(transformer.dtype),
            encoder_hidden_states=cond.text_RLD,
            encoder_attention_mask=cond.mask_RL,
            timestep=t.expand(len(x_RChw)),
            added_cond_kwargs=self.size_conditions(model, cond, pixels=pixels),
            return_dict=False,
        )[0]
        return output[:, : x_RChw.shape[1]]

    def size_conditions(
        self, model: "Diffusion | Skeleton", cond: Conditioning, *, pixels: tuple[int, int]
    ) -> dict[str, torch.Tensor | None]:
        """Return the image's height, width and their ratio, where the transformer reads them."""
        if model.denoiser.config.sample_size != SIZED:
            return {"resolution": None, "aspect_ratio": None}
        height, width = pixels
        row = cond.text_RLD
        return {
            "resolution": row.new_tensor([height, width]).expand(len(cond), -1),
            "aspect_ratio": row.new_tensor([height / width]).expand(len(cond), -1),
        }


class PixArtSigma(PixArtAlpha):
    """`PixArtSigmaPipeline` (Chen et al. 2024): longer captions, and no size."""

    pipeline = "PixArtSigmaPipeline"
    length = 300
    least_steps = 1

    def check_settings(self, networks: Mapping[str, Any]) -> None:
        """Refuse what alpha's does, and a transformer that reads the image's size."""
        super().check_settings(networks)
        if networks["transformer"].use_additional_conditions:
            refuse_settings(networks, {("transformer", "use_additional_conditions"): (False,)})

    def size_conditions(
        self, model: "Diffusion | Skeleton", cond: Conditioning, *, pixels: tuple[int, int]
    ) -> dict[str, torch.Tensor | None]:
        """Return none: the transformer reads no size."""
        return {"resolution": None, "aspect_ratio": None}


def cross_attention_sites(path: str, block: Any, layer: int) -> Iterator[NetworkSite]:
    """Yield the components of a block of self-attention, cross-attention and feed-forward."""
    yield from with_heads(f"{path}.attn1", block.attn1, Kind.SELF_ATTENTION, layer)
    yield from with_heads(f"{path}.attn2", block.attn2, Kind.CROSS_ATTENTION, layer)
    yield whole(f"{path}.ff", block.ff, Kind.FEED_FORWARD, layer)
    yield whole(f"{path}.stream_image", block, Kind.STREAM_IMAGE, layer)
