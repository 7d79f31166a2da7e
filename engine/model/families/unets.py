"""The base of families with a UNet: its components, and how it is called.

Shapes: R rows, C channels, h x w latent.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from engine.model.conditioning import Conditioning
from engine.model.hooks import HookPoint, Side
from engine.model.model import Family
from engine.model.sites import NetworkSite, whole, with_heads
from schemas.component import Kind

if TYPE_CHECKING:
    from engine.model.model import Diffusion, Skeleton


class UNetFamily(Family):
    """Pipelines whose denoiser is a `UNet2DConditionModel`."""

    denoiser = "unet"

    def sites(self, denoiser: Any) -> Iterator[NetworkSite]:
        """Yield heads, self-attention (attn1), cross-attention (attn2), feed-forward and resnets of
        every block, and the block."""
        return unet_sites(denoiser)

    def embeds_guidance(self, denoiser: Any) -> bool:
        """Return whether the UNet embeds the guidance scale, as that of a distilled model does."""
        return denoiser.config.time_cond_proj_dim is not None

    def unet_options(
        self, model: "Diffusion | Skeleton", cond: Conditioning, *, pixels: tuple[int, int]
    ) -> dict[str, Any]:
        """Return the UNet's arguments besides latents, timestep and text rows."""
        return {}

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
        """Return the UNet's output."""
        unet = model.denoiser
        options = self.unet_options(model, cond, pixels=pixels)
        embedded = unet.config.time_cond_proj_dim
        if embedded is not None:
            row_cond = _guidance_embedding(guidance, embedded, x_RChw)
            options["timestep_cond"] = row_cond.to(unet.dtype)
        return unet(
            x_RChw.to(unet.dtype),
            t,
            encoder_hidden_states=cond.text_RLD,
            return_dict=False,
            **options,
        )[0]


def _guidance_embedding(guidance: float, width: int, x: torch.Tensor) -> torch.Tensor:
    """Return the sinusoidal embedding of w - 1 for every row (Meng et al. 2023; LCM's pipeline)."""
    frequency = torch.arange(width // 2, device=x.device, dtype=torch.float32)
    angle = 1000 * (guidance - 1) * torch.exp(-frequency * math.log(10_000) / (width // 2 - 1))
    row = torch.cat([angle.sin(), angle.cos()])
    return torch.nn.functional.pad(row, (0, width % 2)).expand(len(x), -1).to(x.dtype)


def unet_sites(unet: Any) -> Iterator[NetworkSite]:
    """Yield the components of a UNet in its order of execution."""
    middle = [] if unet.mid_block is None else [("mid_block", unet.mid_block)]  # BK-SDM's tiny ones
    blocks = [
        *((f"down_blocks.{n}", block) for n, block in enumerate(unet.down_blocks)),
        *middle,
        *((f"up_blocks.{n}", block) for n, block in enumerate(unet.up_blocks)),
    ]
    for layer, (path, block) in enumerate(blocks):
        yield from _block_sites(path, block, layer)
        increments = _block_increments(block)
        yield whole(path, block, Kind.BLOCK, layer, side=Side.OUTPUTS, increments=increments)


def _block_sites(path: str, block: Any, layer: int) -> Iterator[NetworkSite]:
    """Yield a block's sites: resnet i, then attention i (the mid block ends with a resnet)."""
    attentions = list(getattr(block, "attentions", None) or [])
    for n, resnet in enumerate(block.resnets):
        yield _resnet(f"{path}.resnets.{n}", resnet, layer)
        if n < len(attentions):
            yield from _attention_sites(f"{path}.attentions.{n}", attentions[n], layer)
    for name in ("downsamplers", "upsamplers"):
        for n, sampler in enumerate(getattr(block, name, None) or []):
            if hasattr(sampler, "time_emb_proj"):  # DeepFloyd IF resamples by resnets
                yield _resnet(f"{path}.{name}.{n}", sampler, layer)


def _resnet(path: str, resnet: Any, layer: int) -> NetworkSite:
    """Return a resnet, which adds its second convolution's output to its input."""
    return whole(path, resnet, Kind.RESNET, layer, increments=(HookPoint(resnet.conv2),))


def _block_increments(block: Any) -> tuple[HookPoint, ...]:
    """Return all that a block's modules add; resampling and shortcuts in between are linear."""
    attentions = [a for a in getattr(block, "attentions", None) or [] if a is not None]
    samplers = [
        sampler
        for name in ("downsamplers", "upsamplers")
        for sampler in getattr(block, name, None) or []
        if hasattr(sampler, "time_emb_proj")
    ]
    return (
        *(HookPoint(resnet.conv2) for resnet in (*block.resnets, *samplers)),
        *(_attention_increment(attention) for attention in attentions),
    )


def _attention_increment(attention: Any) -> HookPoint:
    """Return the output that an attention or a transformer adds to its residual stream."""
    if hasattr(attention, "transformer_blocks"):
        return HookPoint(attention.proj_out)
    return HookPoint(attention.to_out[0])


def _attention_sites(path: str, attention: Any, layer: int) -> Iterator[NetworkSite]:
    if not hasattr(attention, "transformer_blocks"):
        increments = (_attention_increment(attention),)
        yield from with_heads(path, attention, Kind.JOINT_ATTENTION, layer, increments=increments)
        return
    for n, transformer in enumerate(attention.transformer_blocks):
        inner = f"{path}.transformer_blocks.{n}"
        yield from with_heads(f"{inner}.attn1", transformer.attn1, Kind.SELF_ATTENTION, layer)
        yield from with_heads(f"{inner}.attn2", transformer.attn2, Kind.CROSS_ATTENTION, layer)
        yield whole(f"{inner}.ff", transformer.ff, Kind.FEED_FORWARD, layer)
