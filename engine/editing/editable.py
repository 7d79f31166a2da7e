"""The parts of a model that an edit can change: the projections of components.

Text encoders: the output projection of a self-attention or MLP (DiffQuickFix: out_proj of the first
self-attention). The denoiser, where it reads the caption:
- the text projection, by which a transformer takes in the text rows, and the pooled projection; of
  a projection of two layers the first, which reads the encoders' rows (UCE, Gandikota et al. 2024);
- `to_k` and `to_v` of a cross-attention, which read the projected rows (LocoEdit, Basu et al. 2024;
  UCE);
- the output projections of a refiner, which reads the text alone (Z-Image);
- `add_k_proj` and `add_v_proj` of a transformer's joint attention, which read the text's stream;
- `to_k` and `to_v` of a single-stream block, only where asked for: they project the image's tokens
  too, so that an edit changes every image.

Shapes: N prompts, T tokens, P rows, D a projection's inputs, E its outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType

from torch import nn

from engine.model.components import Networks, Site, list_sites, sites_of
from schemas.component import Component, Kind, Part
from schemas.errors import UnknownComponent

ENCODER_PATHS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        Kind.SELF_ATTENTION: ("out_proj", "o", "o_proj"),
        Kind.MLP: ("fc2", "wo", "down_proj"),
    }
)
"""Projections of a text encoder by the names that CLIP, T5 and decoders give them."""
UNET_PATHS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {Kind.CROSS_ATTENTION: ("to_k", "to_v")}
)
TRANSFORMER_PATHS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        Kind.TEXT_PROJECTION: ("", "linear_1"),
        Kind.POOLED_PROJECTION: ("", "linear_1"),
        Kind.CROSS_ATTENTION: ("to_k", "to_v"),
        Kind.JOINT_ATTENTION: ("add_k_proj", "add_v_proj"),
        Kind.SELF_ATTENTION_TEXT: ("to_out.0",),
        Kind.FEED_FORWARD_TEXT: ("w2",),
    }
)
"""Projections of a transformer; the empty name is the component's own module. Only the feed-forward
of a text refiner has a `w2`: those of joint blocks read a text that has met the image."""
SHARED_PATHS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {Kind.JOINT_ATTENTION: ("to_k", "to_v")}
)
"""Projections of a single-stream block, which image and text share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Editable:
    """A component that can be edited."""

    component: Component
    projections: dict[str, nn.Linear]
    """Projections by the public names of their weights,
    `text_encoder.encoder.layers.0.self_attn.out_proj.weight`."""


def editable(model: Networks, component: str) -> Editable:
    """Return a component's projections; UnknownComponent if there is none that an edit can change,
    or no image depends on it.

    Works on a skeleton too.
    """
    site = sites_of(model, [component])[component]
    layers = _projections(model, site)
    if site.component.is_dead:
        raise UnknownComponent(
            f"{component} cannot be edited: no image depends on it "
            "(`dqf components MODEL` marks such components with is_dead)"
        )
    if not layers:
        raise UnknownComponent(
            f"{component} cannot be edited: an edit needs a self_attn or mlp of a text encoder, "
            "a cross_attn of the denoiser, or of a transformer a text_projection, "
            "pooled_projection, joint_attn or a block that reads the text alone"
        )
    return Editable(
        component=site.component,
        projections={_public_name(model, layer): layer for layer in layers},
    )


def editable_together(model: Networks, components: Sequence[str]) -> Editable:
    """Return the projections of components that read the same rows, as those of the first one."""
    found = [editable(model, name) for name in components]
    projections = {n: p for each in found for n, p in each.projections.items()}
    return Editable(component=found[0].component, projections=projections)


def editables(
    model: Networks, names: Sequence[str], *, with_shared: bool = False
) -> tuple[str, ...]:
    """Return the named components, each once; the name of a network, block or layer, or a pattern
    with `*`, stands for all that it holds or matches.

    Single-stream blocks count only with `with_shared`. UnknownComponent: a name is unknown, there
    is nothing in it that can be edited, or it is a single-stream block without `with_shared`.
    """
    found = [c.name for c in editable_components(model, with_shared=with_shared)]
    chosen: dict[str, None] = {}
    for name in names:
        inside = [component for component in found if _stands_for(name, component)]
        chosen |= dict.fromkeys(inside or [_single(model, name, with_shared=with_shared)])
    return tuple(chosen)


def editable_components(model: Networks, *, with_shared: bool = False) -> list[Component]:
    """Return the components that an edit can change, in network order; single-stream blocks only
    with `with_shared`."""
    return [
        site.component
        for site in list_sites(model)
        if _projections(model, site)
        and not site.component.is_dead
        and (with_shared or not site.component.in_single_stream)
    ]


def default_components(model: Networks) -> tuple[str, ...]:
    """Return the components that are edited where none is named: a transformer's text projection
    and, where it has one, the projection of the pooled embedding.

    All that a text says passes these once, and no image does. With the first alone a concept comes
    back by the pooled embedding (measured on emoji-dit: docs/editing.md). Empty: the denoiser has
    no text projection.
    """
    can_edit = editable_components(model)
    text, pooled = (
        [component.name for component in can_edit if component.kind is kind]
        for kind in (Kind.TEXT_PROJECTION, Kind.POOLED_PROJECTION)
    )
    return (*text, *pooled) if text else ()


def edited_with(model: Networks, component: str) -> tuple[str, ...]:
    """Return the components to edit for a located one: for a text encoder's the MLPs of its layer
    and the next in every text encoder, otherwise it alone.

    The attention that tracing finds carries the attribute, but the MLPs after it tell names apart
    (measured on emoji-sd: docs/editing.md). What one encoder no longer says another still does
    (measured on emoji-dit).
    """
    found = sites_of(model, [component])[component].component
    if found.part is not Part.TEXT_ENCODER:
        return (component,)
    return tuple(
        mlp.name
        for mlp in editable_components(model)
        if mlp.part is Part.TEXT_ENCODER
        and mlp.kind is Kind.MLP
        and mlp.layer in (found.layer, found.layer + 1)
    ) or (component,)


def _stands_for(name: str, component: str) -> bool:
    return component.startswith(f"{name}.") or ("*" in name and fnmatchcase(component, name))


def _single(model: Networks, name: str, *, with_shared: bool) -> str:
    component = editable(model, name).component
    if component.in_single_stream and not with_shared:
        raise UnknownComponent(
            f"{name} projects image tokens and text tokens by the same weights, so that an edit "
            "changes every image: name a text_projection or a joint block, or give "
            "--shared-projections"
        )
    return component.name


def _projections(model: Networks, site: Site) -> list[nn.Linear]:
    component = site.component
    if component.part is Part.TEXT_ENCODER:
        paths = ENCODER_PATHS
    elif component.in_single_stream:
        paths = SHARED_PATHS
    elif model.family.denoiser == "unet":
        paths = UNET_PATHS
    else:
        paths = TRANSFORMER_PATHS
    found = (_at(site.module, path) for path in paths.get(component.kind, ()))
    return [layer for layer in found if isinstance(layer, nn.Linear)]


def _at(module: nn.Module, path: str) -> object:
    for name in path.split(".") if path else ():
        module = getattr(module, name, None)  # pyright: ignore
    return module


def _public_name(model: Networks, layer: nn.Linear) -> str:
    parts = [(model.family.denoiser, model.denoiser), *((e.name, e.module) for e in model.encoders)]
    return next(
        f"{part}.{path}.weight"
        for part, network in parts
        for path, module in network.named_modules()
        if module is layer
    )
