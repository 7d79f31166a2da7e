"""Naming and finding the components of a model, in the network's order of execution."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from engine.model.hooks import HookPoint, Side
from engine.model.model import TextEncoder
from schemas.component import Component, Kind, Part
from schemas.errors import UnknownComponent


class Networks(Protocol):
    """An object with components: an opened model or its skeleton."""

    @property
    def name(self) -> str: ...
    @property
    def encoders(self) -> tuple[TextEncoder, ...]: ...
    @property
    def unet(self) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a component is in an opened network."""

    component: Component
    module: nn.Module
    """The component's module; for a head, that of its attention."""
    spot: HookPoint
    """Hook point of its activation."""
    channels: slice | None = None
    """Channels of the activation that belong to the component: those of one head, or by default
    all."""
    increments: tuple[HookPoint, ...] = ()
    """Hook points of all that the component adds to its input; none where it adds its whole
    output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A site inside one network, not yet numbered."""

    path: str
    module: nn.Module
    kind: Kind
    layer: int
    spot: HookPoint
    channels: slice | None = None
    increments: tuple[HookPoint, ...] = ()
    share: int = 1
    """Number of components that share the module's parameters equally."""


def list_sites(model: Networks) -> list[Site]:
    """Return every component's site, the UNet's first, each network in its order of execution.

    UNet: heads, self-attention (attn1), cross-attention (attn2), feed-forward and resnets of every
    block, and the block; 70 of the kinds that the paper traces in Stable Diffusion 1 and 2, 227 in
    SDXL. Text encoders: heads, self-attention and MLP of every layer, and the layer.
    """
    unet = [("unet", found) for found in _unet_sites(model.unet)]
    text = [(e.name, found) for e in model.encoders for found in _text_sites(e.module)]
    return [
        *(_site(name, found, Part.DENOISER, order) for order, (name, found) in enumerate(unet)),
        *(_site(name, found, Part.TEXT_ENCODER, order) for order, (name, found) in enumerate(text)),
    ]


def list_components(model: Networks, kinds: Iterable[Kind] | None = None) -> list[Component]:
    """Return the components of those kinds, by default all, in the order of `list_sites`."""
    wanted = set(Kind if kinds is None else kinds)
    return [site.component for site in list_sites(model) if site.component.kind in wanted]


def sites_of(model: Networks, names: Sequence[str]) -> dict[str, Site]:
    """Return the sites of the named components; UnknownComponent suggests the nearest names."""
    sites = {site.component.name: site for site in list_sites(model)}
    choose([site.component for site in sites.values()], names)
    return {name: sites[name] for name in names}


def choose(components: Sequence[Component], names: Sequence[str]) -> list[Component]:
    """Return the named components, in network order."""
    in_model = {component.name for component in components}
    for name in names:
        if name not in in_model:
            near = difflib.get_close_matches(name, sorted(in_model), n=3, cutoff=0.0)
            raise UnknownComponent(
                f"the model has no component {name!r}: the nearest names are {', '.join(near)}"
            )
    wanted = set(names)
    return [component for component in components if component.name in wanted]


def _site(network: str, found: _Found, part: Part, order: int) -> Site:
    component = Component(
        name=f"{network}.{found.path}",
        part=part,
        kind=found.kind,
        order=order,
        layer=found.layer,
        num_parameters=sum(p.numel() for p in found.module.parameters()) // found.share,
        has_contribution=bool(found.increments),
    )
    return Site(
        component=component,
        module=found.module,
        spot=found.spot,
        channels=found.channels,
        increments=found.increments,
    )


def _unet_sites(unet: Any) -> Iterator[_Found]:
    middle = [] if unet.mid_block is None else [("mid_block", unet.mid_block)]  # BK-SDM's tiny ones
    blocks = [
        *((f"down_blocks.{n}", block) for n, block in enumerate(unet.down_blocks)),
        *middle,
        *((f"up_blocks.{n}", block) for n, block in enumerate(unet.up_blocks)),
    ]
    for layer, (path, block) in enumerate(blocks):
        yield from _block_sites(path, block, layer)
        yield _Found(
            path=path,
            module=block,
            kind=Kind.BLOCK,
            layer=layer,
            spot=HookPoint(block, Side.OUTPUTS),
            increments=_block_increments(block),
        )


def _block_sites(path: str, block: Any, layer: int) -> Iterator[_Found]:
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


def _resnet(path: str, resnet: Any, layer: int) -> _Found:
    """Return a resnet, which adds what its second convolution returns to its input."""
    return _Found(
        path=path,
        module=resnet,
        kind=Kind.RESNET,
        layer=layer,
        spot=HookPoint(resnet),
        increments=(HookPoint(resnet.conv2),),
    )


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
    """Return what an attention with a residual adds, or a transformer's projection."""
    if hasattr(attention, "transformer_blocks"):
        return HookPoint(attention.proj_out)
    return HookPoint(attention.to_out[0])


def _attention_sites(path: str, attention: Any, layer: int) -> Iterator[_Found]:
    if not hasattr(attention, "transformer_blocks"):
        increments = (_attention_increment(attention),)
        yield from _with_heads(path, attention, Kind.JOINT_ATTENTION, layer, increments=increments)
        return
    for n, transformer in enumerate(attention.transformer_blocks):
        inner = f"{path}.transformer_blocks.{n}"
        yield from _with_heads(f"{inner}.attn1", transformer.attn1, Kind.SELF_ATTENTION, layer)
        yield from _with_heads(f"{inner}.attn2", transformer.attn2, Kind.CROSS_ATTENTION, layer)
        yield _found(f"{inner}.ff", transformer.ff, Kind.FEED_FORWARD, layer)


def _text_sites(text_encoder: Any) -> Iterator[_Found]:
    """Yield the sites of CLIP's text model or of T5's encoder."""
    # transformers 5.6 flattened CLIPTextModel; CLIPTextModelWithProjection still has `text_model`.
    encoder = getattr(text_encoder, "text_model", text_encoder).encoder
    if hasattr(encoder, "layers"):
        parts = [(layer, layer.self_attn, layer.mlp) for layer in encoder.layers]
    else:
        parts = [(b, b.layer[0].SelfAttention, b.layer[1].DenseReluDense) for b in encoder.block]
    for n, (whole, attention, mlp) in enumerate(parts):
        yield from _with_heads(f"layers.{n}.self_attn", attention, Kind.SELF_ATTENTION, n)
        yield _found(f"layers.{n}.mlp", mlp, Kind.MLP, n)
        yield _Found(
            path=f"layers.{n}",
            module=whole,
            kind=Kind.LAYER,
            layer=n,
            spot=HookPoint(whole),
            increments=(HookPoint(attention), HookPoint(mlp)),
        )


def _with_heads(
    path: str,
    attention: Any,
    kind: Kind,
    layer: int,
    *,
    increments: tuple[HookPoint, ...] = (),
) -> Iterator[_Found]:
    """Yield an attention's heads, each as channels of the output projection's input, then the
    attention."""
    projection, heads = _output_projection(attention)
    width = projection.in_features // heads
    for n in range(heads):
        yield _Found(
            path=f"{path}.heads.{n}",
            module=attention,
            kind=Kind.HEAD,
            layer=layer,
            spot=HookPoint(projection, Side.INPUT),
            channels=slice(n * width, (n + 1) * width),
            share=heads,
        )
    yield _Found(
        path=path,
        module=attention,
        kind=kind,
        layer=layer,
        spot=HookPoint(attention),
        increments=increments,
    )


def _output_projection(attention: Any) -> tuple[nn.Linear, int]:
    """Return an attention's output projection and its number of heads."""
    if hasattr(attention, "to_out"):  # diffusers
        return attention.to_out[0], attention.heads
    if hasattr(attention, "out_proj"):  # CLIP
        return attention.out_proj, attention.num_heads
    return attention.o, attention.n_heads  # T5


def _found(path: str, module: nn.Module, kind: Kind, layer: int) -> _Found:
    return _Found(path=path, module=module, kind=kind, layer=layer, spot=HookPoint(module))
