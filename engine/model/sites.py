"""Where the components of a network are: attentions with their heads, and the layers of text
encoders."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from engine.model.hooks import HookPoint, Side
from schemas.component import Kind

Positions = slice | Callable[[int], slice]
"""Token positions of an activation, or a function of a latent's cells, h x w, that returns them:
where the image's tokens come first, text tokens stand elsewhere in a larger image."""


def positions_at(positions: Positions | None, cells: int) -> slice | None:
    """Return the token positions at a latent of so many cells."""
    return positions(cells) if callable(positions) else positions


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSite:
    """A component inside one network, not yet numbered."""

    path: str
    """Its name after that of the network."""
    module: nn.Module
    kind: Kind
    layer: int
    spot: HookPoint
    channels: slice | None = None
    """Channels of the activation that belong to it, by default all."""
    positions: Positions | None = None
    """Token positions of the activation that belong to it, by default all."""
    increments: tuple[HookPoint, ...] = ()
    """Hook points of all that it adds to its input; none where it adds its whole output."""
    share: int = 1
    """Number of components that share the module's parameters equally."""
    is_dead: bool = False
    """The image does not depend on it, by construction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Where image and text stand in a single stream."""

    image: Positions
    text: Positions
    is_text_dead: bool
    """Nothing reads the text after the block."""

    def both(
        self,
        paths: tuple[str, str],
        spot: HookPoint,
        kinds: tuple[Kind, Kind],
        layer: int,
        *,
        module: nn.Module | None = None,
        channels: slice | None = None,
        share: int = 1,
        heads: Mapping[str, Any] | None = None,
    ) -> Iterator[NetworkSite]:
        """Yield an activation's image span and text span; before each its heads, of which `heads`
        says what `head_sites` is to know.

        `module` is the hook point's unless another computes the activation.
        """
        module = module or spot.module
        spans = ((self.image, False), (self.text, self.is_text_dead))
        for path, kind, (positions, is_dead) in zip(paths, kinds, spans, strict=True):
            if heads is not None:
                yield from head_sites(
                    path, module, layer, positions=positions, is_dead=is_dead, **heads
                )
            yield NetworkSite(
                path=path,
                module=module,
                kind=kind,
                layer=layer,
                spot=spot,
                channels=channels,
                positions=positions,
                share=share,
                is_dead=is_dead,
            )


STREAMS = (Kind.STREAM_IMAGE, Kind.STREAM_TEXT)
JOINT = (Kind.JOINT_ATTENTION, Kind.JOINT_ATTENTION_TEXT)
FEED = (Kind.FEED_FORWARD, Kind.FEED_FORWARD_TEXT)
"""Kinds of the image's span and of the text's."""


def image_and_text(path: str) -> tuple[str, str]:
    """Return the paths of a module's image span and text span."""
    return path, f"{path}.text"


def streams(path: str) -> tuple[str, str]:
    """Return the paths of a block's image stream and text stream."""
    return f"{path}.stream_image", f"{path}.stream_text"


def whole(
    path: str,
    module: nn.Module,
    kind: Kind,
    layer: int,
    *,
    side: Side = Side.OUTPUT,
    increments: tuple[HookPoint, ...] = (),
    is_dead: bool = False,
) -> NetworkSite:
    """Return the component that is a module's whole activation."""
    return NetworkSite(
        path=path,
        module=module,
        kind=kind,
        layer=layer,
        spot=HookPoint(module, side),
        increments=increments,
        is_dead=is_dead,
    )


def element(
    path: str, module: nn.Module, kind: Kind, layer: int, number: int, *, is_dead: bool = False
) -> NetworkSite:
    """Return the component that is one element of the tuple that a module returns."""
    return NetworkSite(
        path=path,
        module=module,
        kind=kind,
        layer=layer,
        spot=HookPoint(module, Side.OUTPUT, number),
        is_dead=is_dead,
    )


def head_sites(
    path: str,
    attention: nn.Module,
    layer: int,
    *,
    projection: nn.Linear,
    heads: int,
    width: int | None = None,
    positions: Positions | None = None,
    is_dead: bool = False,
) -> Iterator[NetworkSite]:
    """Yield an attention's heads, each as channels of the output projection's input.

    `width` is the number of channels of a head, by default an equal share of the input's.
    """
    width = width or projection.in_features // heads
    for n in range(heads):
        yield NetworkSite(
            path=f"{path}.heads.{n}",
            module=attention,
            kind=Kind.HEAD,
            layer=layer,
            spot=HookPoint(projection, Side.INPUT),
            channels=slice(n * width, (n + 1) * width),
            positions=positions,
            share=heads,
            is_dead=is_dead,
        )


def with_heads(
    path: str,
    attention: Any,
    kind: Kind,
    layer: int,
    *,
    increments: tuple[HookPoint, ...] = (),
) -> Iterator[NetworkSite]:
    """Yield an attention's heads, then the attention."""
    projection, heads = _output_projection(attention)
    yield from head_sites(path, attention, layer, projection=projection, heads=heads)
    yield whole(path, attention, kind, layer, increments=increments)


def _output_projection(attention: Any) -> tuple[nn.Linear, int]:
    """Return an attention's output projection and its number of heads."""
    if hasattr(attention, "to_out"):  # diffusers
        return attention.to_out[0], attention.heads
    if hasattr(attention, "out_proj"):  # CLIP
        return attention.out_proj, attention.num_heads
    if hasattr(attention, "o_proj"):  # decoders: Gemma, Qwen, Mistral
        return attention.o_proj, attention.config.num_attention_heads
    return attention.o, attention.n_heads  # T5


def text_sites(text_encoder: Any) -> Iterator[NetworkSite]:
    """Yield heads, self-attention and MLP of every layer of CLIP, T5's encoder or a decoder, and
    the layer."""
    # transformers 5.6 flattened CLIPTextModel; CLIPTextModelWithProjection still has `text_model`.
    inner = text_encoder.get_decoder()
    encoder = getattr(inner, "encoder", inner)
    if hasattr(encoder, "layers"):
        parts = [(layer, layer.self_attn, layer.mlp) for layer in encoder.layers]
    else:
        parts = [(b, b.layer[0].SelfAttention, b.layer[1].DenseReluDense) for b in encoder.block]
    for n, (layer, attention, mlp) in enumerate(parts):
        yield from with_heads(f"layers.{n}.self_attn", attention, Kind.SELF_ATTENTION, n)
        yield whole(f"layers.{n}.mlp", mlp, Kind.MLP, n)
        increments = (HookPoint(attention), HookPoint(mlp))
        yield whole(f"layers.{n}", layer, Kind.LAYER, n, increments=increments)
