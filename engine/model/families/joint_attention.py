"""Stable Diffusion 3 and 3.5, and FLUX.1: transformers in which image and text attend jointly.

In a joint block the image's tokens and the text's have projections and feed-forwards of their own
and one attention. FLUX.1's single blocks follow, in which both are one sequence with the text
first. The caption enters twice: as text rows, and as a pooled embedding that scales and shifts the
tokens in every block.

Shapes: R rows, L token positions, D text width, P pooled width, C channels, h x w latent, T image
tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers import (
    AutoencoderKL,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

from engine.model.conditioning import Conditioning, TextPlace
from engine.model.families.clip import penultimate
from engine.model.families.t5 import t5_dtype, with_length
from engine.model.families.transformers import (
    TransformerFamily,
    check_given,
    check_latent,
    check_width,
    shifted,
    sigmas_and_shift,
    with_shift,
)
from engine.model.hooks import HookPoint, Side
from engine.model.settings import Allowed, refuse_settings
from engine.model.sites import (
    FEED,
    JOINT,
    NetworkSite,
    Spans,
    element,
    head_sites,
    image_and_text,
    whole,
    with_heads,
)
from schemas.component import Kind

if TYPE_CHECKING:
    from engine.model.model import Diffusion, Skeleton

SD3_LENGTH = 256
"""T5's token positions in SD3's pipeline; without T5 as many rows of zeros."""
TRAINED_LENGTH = "_max_sequence_length"
"""Setting of a transformer that was trained with another number of them, which its pipeline must be
called with, as `max_sequence_length`. It is dqf's own; diffusers keeps and ignores it."""
GUIDED_LENGTH, DISTILLED_LENGTH = 512, 256
"""T5's token positions in FLUX.1 dev, and in schnell, which was distilled at fewer."""
SETTINGS: Allowed = {("vae", "out_channels"): (3,)}
PATCH = 2
"""Cells of a latent along a side of an image token of FLUX.1."""


class JointFamily(TransformerFamily):
    """Pipelines of CLIP and T5, of which CLIP gives the pooled embedding and has its own length."""

    has_pooled = True
    t5: ClassVar[str]
    """The part that is T5."""

    def prepare_tokenizer(self, tokenizer: Any, *, part: str, denoiser: Any) -> Any:
        """Return a tokenizer that pads as the pipeline does."""
        length = self.length_of(part, denoiser)
        return tokenizer if length is None else with_length(tokenizer, length)

    def decode(self, model: "Diffusion", x_RChw: torch.Tensor) -> torch.Tensor:
        """Return images_RCHW in [0, 1] of latents that the VAE's config says to shift."""
        return super().decode(model, with_shift(model.vae, x_RChw))

    def text_dtype(self, dtype: torch.dtype, *, part: str) -> torch.dtype:
        """Return float32 for T5 in place of float16, in which its feed-forward overflows."""
        return t5_dtype(dtype) if part == self.t5 else dtype


class StableDiffusion3(JointFamily):
    """`StableDiffusion3Pipeline`: SD3 and SD3.5 (Esser et al. 2024), with T5 or without."""

    pipeline = "StableDiffusion3Pipeline"
    networks = MappingProxyType(
        {
            "text_encoder": CLIPTextModelWithProjection,
            "text_encoder_2": CLIPTextModelWithProjection,
            "text_encoder_3": T5EncoderModel,
            "transformer": SD3Transformer2DModel,
            "vae": AutoencoderKL,
        }
    )
    optional = frozenset({"text_encoder_3"})
    encoders = (
        ("text_encoder", "tokenizer"),
        ("text_encoder_2", "tokenizer_2"),
        ("text_encoder_3", "tokenizer_3"),
    )
    t5 = "text_encoder_3"

    def check_settings(self, networks: Mapping[str, Any]) -> None:
        """Refuse other widths of text than the transformer reads, and other channels."""
        refuse_settings(networks, SETTINGS)
        reads = networks["transformer"].config
        check_latent(networks["vae"], reads=reads.in_channels)
        check_given(networks, reads.in_channels)
        clip = [networks[part].config for part in ("text_encoder", "text_encoder_2")]
        pooled = sum(config.projection_dim for config in clip)
        check_width(networks, "both CLIPs", gives=pooled, reads=reads.pooled_projection_dim)
        if "text_encoder_3" in networks:
            width = networks["text_encoder_3"].config.d_model
            check_width(networks, "text_encoder_3", gives=width, reads=reads.joint_attention_dim)

    def length_of(self, part: str, denoiser: Any) -> int | None:
        """Return T5's positions; CLIP has its own limit."""
        return self.t5_length(denoiser) if part == self.t5 else None

    def t5_length(self, denoiser: Any) -> int:
        """Return T5's positions, or as many rows of zeros without it: the pipeline's own, unless
        the transformer's config names those that it was trained with."""
        return denoiser.config.get(TRAINED_LENGTH, SD3_LENGTH)

    def sites(self, denoiser: Any) -> Iterator[NetworkSite]:
        """Yield the pooled embedding's projection, the modulation, the text's projection, and both
        sides of every block."""
        yield from entry_sites(denoiser)
        for layer, block in enumerate(denoiser.transformer_blocks):
            yield from joint_sites(f"transformer_blocks.{layer}", block, layer)

    def encode(self, model: "Diffusion | Skeleton", ids: Sequence[torch.Tensor]) -> Conditioning:
        """Return the CLIPs' penultimate states side by side, then T5's rows, and both pooled."""
        (first_RLD, first_RP), (second_RLD, second_RP) = (
            penultimate(encoder.module, ids_RL)
            for encoder, ids_RL in zip(model.encoders[:2], ids[:2], strict=True)
        )
        clip_RLD = torch.cat([first_RLD, second_RLD], dim=-1)
        positions, width = clip_RLD.shape[1:]
        clip = TextPlace(length=positions, width=width)
        denoiser = model.denoiser
        joint = denoiser.config.joint_attention_dim
        if len(model.encoders) > 2:
            t5_RLD = self.run_encoder(model.encoders[2], ids[2])[0].to(denoiser.dtype)
            places = (clip, TextPlace(encoder=2, start=positions))
        else:
            rows = self.t5_length(denoiser)
            t5_RLD, places = clip_RLD.new_zeros(len(clip_RLD), rows, joint), (clip,)
        padded_RLD = torch.nn.functional.pad(clip_RLD, (0, joint - width))
        return Conditioning(
            text_RLD=torch.cat([padded_RLD, t5_RLD], dim=1),
            pooled_RP=torch.cat([first_RP, second_RP], dim=-1),
            places=places,
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
        """Return the transformer's output: the velocity of the flow."""
        transformer = model.denoiser
        return transformer(
            x_RChw.to(transformer.dtype),
            timestep=t.expand(len(x_RChw)),
            encoder_hidden_states=cond.text_RLD,
            pooled_projections=cond.pooled_RP,
            return_dict=False,
        )[0]

    def most_cells(self, denoiser: Any) -> int | None:
        """Return the side of the table of positions, of which the middle is read; None where the
        transformer computes positions at every size."""
        side = denoiser.config.pos_embed_max_size
        return side and side * self.patch_size(denoiser)

    def schedule(self, scheduler: Any, *, steps: int, tokens: int) -> dict[str, Any]:
        """Return the shift of the steps at the image's size, for a scheduler that asks for it."""
        if not scheduler.config.get("use_dynamic_shifting"):
            return {}
        return {"mu": shifted(scheduler, tokens=tokens, most=1.16)}


class Flux(JointFamily):
    """`FluxPipeline`: FLUX.1 dev, which embeds the guidance scale, and schnell, which has none."""

    pipeline = "FluxPipeline"
    own_cells = 128
    networks = MappingProxyType(
        {
            "text_encoder": CLIPTextModel,
            "text_encoder_2": T5EncoderModel,
            "transformer": FluxTransformer2DModel,
            "vae": AutoencoderKL,
        }
    )
    encoders = (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"))
    t5 = "text_encoder_2"

    def check_settings(self, networks: Mapping[str, Any]) -> None:
        """Refuse other widths of text than the transformer reads, and other channels."""
        # Latents come packed, a token's cells as channels.
        refuse_settings(networks, {**SETTINGS, ("transformer", "patch_size"): (1,)})
        reads = networks["transformer"].config
        check_latent(networks["vae"], reads=reads.in_channels // PATCH**2)
        check_given(networks, reads.in_channels)
        pooled = networks["text_encoder"].config.hidden_size
        check_width(networks, "text_encoder", gives=pooled, reads=reads.pooled_projection_dim)
        width = networks["text_encoder_2"].config.d_model
        check_width(networks, "text_encoder_2", gives=width, reads=reads.joint_attention_dim)

    def length_of(self, part: str, denoiser: Any) -> int | None:
        """Return T5's positions; CLIP has its own limit."""
        if part != self.t5:
            return None
        return GUIDED_LENGTH if denoiser.config.guidance_embeds else DISTILLED_LENGTH

    def sites(self, denoiser: Any) -> Iterator[NetworkSite]:
        """Yield the pooled embedding's projection, the modulation, the text's projection, both
        sides of every joint block, and both spans of every single block."""
        yield from entry_sites(denoiser)
        joint, single = denoiser.transformer_blocks, denoiser.single_transformer_blocks
        for layer, block in enumerate(joint):
            yield from joint_sites(f"transformer_blocks.{layer}", block, layer)
        length = self.length_of(self.t5, denoiser)
        for n, block in enumerate(single):
            yield from single_sites(
                f"single_transformer_blocks.{n}",
                block,
                len(joint) + n,
                length=length,
                is_last=n == len(single) - 1,
            )

    def encode(self, model: "Diffusion | Skeleton", ids: Sequence[torch.Tensor]) -> Conditioning:
        """Return T5's rows, padding included, and CLIP's pooled embedding."""
        clip, t5 = model.encoders
        dtype = model.denoiser.dtype
        pooled_RP = self.run_encoder(clip, ids[0]).pooler_output
        return Conditioning(
            text_RLD=self.run_encoder(t5, ids[1])[0].to(dtype),
            pooled_RP=pooled_RP.to(dtype),
            places=(TextPlace(encoder=1),),
        )

    def has_unconditional(self, model: "Diffusion | Skeleton") -> bool:
        """Return False: dev embeds the guidance scale, and schnell was distilled to none."""
        return False

    def embeds_guidance(self, denoiser: Any) -> bool:
        """Return whether it is dev."""
        return denoiser.config.guidance_embeds

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
        """Return the transformer's output, the velocity of the flow, in the latents' layout."""
        transformer, rows = model.denoiser, len(x_RChw)
        height, width = x_RChw.shape[-2:]
        scale = None
        if self.embeds_guidance(transformer):
            scale = torch.full((rows,), guidance, device=x_RChw.device, dtype=torch.float32)
        output_RTC = transformer(
            packed(x_RChw).to(transformer.dtype),
            timestep=t.expand(rows) / 1000,
            guidance=scale,
            encoder_hidden_states=cond.text_RLD,
            pooled_projections=cond.pooled_RP,
            txt_ids=cond.text_RLD.new_zeros(cond.text_RLD.shape[1], 3),
            img_ids=places_of(height // 2, width // 2).to(cond.text_RLD),
            return_dict=False,
        )[0]
        return unpacked(output_RTC, height, width)

    def schedule(self, scheduler: Any, *, steps: int, tokens: int) -> dict[str, Any]:
        """Return sigmas from 1 to 1 / steps, and their shift at the image's size."""
        given = sigmas_and_shift(scheduler, steps=steps, tokens=tokens)
        if scheduler.config.get("use_flow_sigmas"):
            return {"mu": given["mu"]}
        return given

    def patch_size(self, denoiser: Any) -> int:
        """Return the cells along a side of an image token, which its config calls channels."""
        return PATCH

    def latent_channels(self, denoiser: Any) -> int:
        """Return the channels of a latent, of which the transformer reads 2 x 2 as one token."""
        return denoiser.config.in_channels // 4


def packed(x_RChw: torch.Tensor) -> torch.Tensor:
    """Return latents as tokens, R x (h/2 w/2) x 4C: 2 x 2 cells each."""
    rows, channels, height, width = x_RChw.shape
    cells = x_RChw.view(rows, channels, height // 2, 2, width // 2, 2)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(rows, height * width // 4, channels * 4)


def unpacked(x_RTC: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return tokens as latents, R x C/4 x h x w: the inverse of `packed`."""
    rows, _, channels = x_RTC.shape
    cells = x_RTC.view(rows, height // 2, width // 2, channels // 4, 2, 2)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(rows, channels // 4, height, width)


def places_of(height: int, width: int) -> torch.Tensor:
    """Return the position of every image token, T x 3: 0, its line and its column."""
    lines, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(lines), lines, columns], dim=-1).flatten(0, 1)


def entry_sites(denoiser: Any) -> Iterator[NetworkSite]:
    """Yield where the caption enters: pooled, what it modulates every block by, and as tokens."""
    embed = denoiser.time_text_embed
    pooled = embed.text_embedder
    yield whole("time_text_embed.text_embedder", pooled, Kind.POOLED_PROJECTION, 0)
    yield whole("time_text_embed", embed, Kind.MODULATION, 0)
    yield whole("context_embedder", denoiser.context_embedder, Kind.TEXT_PROJECTION, 0)


def joint_sites(
    path: str,
    block: Any,
    layer: int,
    *,
    feeds: tuple[str, str] = ("ff", "ff_context"),
    is_last: bool = False,
) -> Iterator[NetworkSite]:
    """Yield the components of a joint block: heads and attention of both sides, the image's second
    attention (SD3.5 medium), both feed-forwards, and both streams after the block.

    Nothing reads the text after the last of all blocks: its side is dead. SD3's has only an
    attention that still returns the text. `feeds` are the names of image's and text's feed-forward.
    """
    attention, is_last = block.attn, is_last or getattr(block, "context_pre_only", False)
    image, text = f"{path}.attn", f"{path}.attn.text"
    first, second = (getattr(block, name) for name in feeds)
    out, add_out, heads = attention.to_out[0], attention.to_add_out, attention.heads
    yield from head_sites(image, attention, layer, projection=out, heads=heads)
    yield element(image, attention, Kind.JOINT_ATTENTION, layer, 0)
    if add_out is not None:
        yield from head_sites(
            text, attention, layer, projection=add_out, heads=heads, is_dead=is_last
        )
    yield element(text, attention, Kind.JOINT_ATTENTION_TEXT, layer, 1, is_dead=is_last)
    if getattr(block, "attn2", None) is not None:
        yield from with_heads(f"{path}.attn2", block.attn2, Kind.SELF_ATTENTION, layer)
    yield whole(f"{path}.{feeds[0]}", first, Kind.FEED_FORWARD, layer)
    if second is not None:
        yield whole(f"{path}.{feeds[1]}", second, Kind.FEED_FORWARD_TEXT, layer, is_dead=is_last)
        yield element(f"{path}.stream_text", block, Kind.STREAM_TEXT, layer, 0, is_dead=is_last)
    yield element(f"{path}.stream_image", block, Kind.STREAM_IMAGE, layer, 1)


def single_sites(
    path: str, block: Any, layer: int, *, length: int | None, is_last: bool
) -> Iterator[NetworkSite]:
    """Yield the components of a single block, each as its image span and its text span: the two
    halves of the output projection's input, which have no module of their own, the heads in it,
    and the streams.

    The text span is the first `length` tokens; nothing reads it after the last block: it is dead.
    """
    spans = Spans(image=slice(length, None), text=slice(0, length), is_text_dead=is_last)
    attention, projection = block.attn, block.proj_out
    attended, spot = attention.to_v.out_features, HookPoint(projection, Side.INPUT)
    yield from spans.both(
        image_and_text(f"{path}.mlp"),
        spot,
        FEED,
        layer,
        module=block.proj_mlp,
        channels=slice(attended, None),
    )
    width = attended // attention.heads
    yield from spans.both(
        image_and_text(f"{path}.attn"),
        spot,
        JOINT,
        layer,
        module=attention,
        channels=slice(attended),
        heads={"projection": projection, "heads": attention.heads, "width": width},
    )
    text = f"{path}.stream_text"
    yield element(text, block, Kind.STREAM_TEXT, layer, 0, is_dead=is_last)
    yield element(f"{path}.stream_image", block, Kind.STREAM_IMAGE, layer, 1)
