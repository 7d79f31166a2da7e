"""Naming and finding the components of a model, in the network's order of execution."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch import nn

from schemas.component import Component, Kind, Part
from schemas.errors import UnknownComponent


class Networks(Protocol):
    """What has components: an opened model or its skeleton."""

    @property
    def name(self) -> str: ...
    @property
    def text_encoder(self) -> nn.Module: ...
    @property
    def unet(self) -> nn.Module: ...


def list_components(model: Networks) -> list[Component]:
    """Return every component, the UNet's first, each part in its order of execution.

    UNet: resnets, self-attention (attn1), cross-attention (attn2) and feed-forward of every block,
    70 in Stable Diffusion 1 and 2. Text encoder: self-attention and MLP of every layer.
    """
    unet = [
        _component(path, module, Part.UNET, kind, order=order, layer=layer)
        for order, (path, module, kind, layer) in enumerate(_unet_sites(model.unet))
    ]
    text = [
        _component(path, module, Part.TEXT_ENCODER, kind, order=order, layer=layer)
        for order, (path, module, kind, layer) in enumerate(_text_sites(model.text_encoder))
    ]
    return unet + text


def module_of(model: Networks, name: str) -> nn.Module:
    """Return the module of a component; UnknownComponent names the nearest if there is none."""
    choose(list_components(model), [name])
    prefix, path = name.split(".", 1)
    root = model.unet if prefix == "unet" else _encoder(model.text_encoder)
    return root.get_submodule(path)


def choose(components: Sequence[Component], names: Sequence[str]) -> list[Component]:
    """Return the components of those names, in network order."""
    known = {component.name for component in components}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.0)
            raise UnknownComponent(
                f"the model has no component {name!r}: the nearest names are {', '.join(near)}"
            )
    return [component for component in components if component.name in set(names)]


def _component(
    path: str, module: nn.Module, part: Part, kind: Kind, *, order: int, layer: int
) -> Component:
    prefix = "unet" if part is Part.UNET else "text_encoder"
    return Component(
        name=f"{prefix}.{path}",
        part=part,
        kind=kind,
        order=order,
        layer=layer,
        num_parameters=sum(p.numel() for p in module.parameters()),
    )


def _unet_sites(unet: nn.Module) -> Iterator[tuple[str, nn.Module, Kind, int]]:
    blocks = [
        *((f"down_blocks.{n}", block) for n, block in enumerate(unet.down_blocks)),  # pyright: ignore
        ("mid_block", unet.mid_block),
        *((f"up_blocks.{n}", block) for n, block in enumerate(unet.up_blocks)),  # pyright: ignore
    ]
    for layer, (path, block) in enumerate(blocks):
        for inner_path, module, kind in _block_sites(block):
            yield f"{path}.{inner_path}", module, kind, layer


def _block_sites(block: nn.Module) -> Iterator[tuple[str, nn.Module, Kind]]:
    """Yield a block's sites: resnet i, then transformer i (the mid block ends with a resnet)."""
    attentions = list(getattr(block, "attentions", None) or [])
    for n, resnet in enumerate(block.resnets):  # pyright: ignore
        yield f"resnets.{n}", resnet, Kind.RESNET
        if n < len(attentions):
            for t, layer in enumerate(attentions[n].transformer_blocks):
                path = f"attentions.{n}.transformer_blocks.{t}"
                yield f"{path}.attn1", layer.attn1, Kind.SELF_ATTENTION
                yield f"{path}.attn2", layer.attn2, Kind.CROSS_ATTENTION
                yield f"{path}.ff", layer.ff, Kind.FEED_FORWARD


def _encoder(text_encoder: Any) -> nn.Module:
    """Return the module that holds `layers`; transformers 5.6 flattened CLIPTextModel."""
    return getattr(text_encoder, "text_model", text_encoder).encoder


def _text_sites(text_encoder: nn.Module) -> Iterator[tuple[str, nn.Module, Kind, int]]:
    for n, layer in enumerate(_encoder(text_encoder).layers):  # pyright: ignore
        yield f"layers.{n}.self_attn", layer.self_attn, Kind.SELF_ATTENTION, n
        yield f"layers.{n}.mlp", layer.mlp, Kind.MLP, n
