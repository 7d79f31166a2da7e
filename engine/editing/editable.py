"""The parts of a model that an edit can change: the projections of components.

Text encoders: the output projection of a self-attention or MLP (DiffQuickFix: out_proj of the first
self-attention). UNet: `to_k` and `to_v` of a cross-attention, which read the encoders' final rows
(LocoEdit, Basu et al. 2024; UCE, Gandikota et al. 2024).

Shapes: N prompts, T tokens, P rows, D a projection's inputs, E its outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from engine.model.components import Networks, list_sites, sites_of
from schemas.component import Component, Kind, Part
from schemas.errors import UnknownComponent


@dataclass(frozen=True, slots=True, kw_only=True)
class Editable:
    """A component that can be edited."""

    component: Component
    projections: dict[str, nn.Linear]
    """Projections by the public names of their weights,
    `text_encoder.encoder.layers.0.self_attn.out_proj.weight`."""


def editable(model: Networks, component: str) -> Editable:
    """Return a component's projections; UnknownComponent if there is none that an edit can change.

    Works on a skeleton too.
    """
    site = sites_of(model, [component])[component]
    paths = _projection_paths(site.component, site.module)
    layers = {path: _at(site.module, path) for path in paths}
    if not layers:
        raise UnknownComponent(
            f"{component} cannot be edited: an edit needs a self_attn or mlp of a text encoder, "
            "or a cross_attn of the UNet"
        )
    return Editable(
        component=site.component,
        projections={_public_name(model, layer): layer for layer in layers.values()},
    )


def editables(model: Networks, names: Sequence[str]) -> tuple[str, ...]:
    """Return the named components, each once; the name of a network, block or layer stands for all
    in it.

    UnknownComponent: a name is unknown or there is nothing in it that can be edited.
    """
    sites = list_sites(model)
    chosen: dict[str, None] = {}
    for name in names:
        inside = [
            site.component.name
            for site in sites
            if site.component.name.startswith(f"{name}.")
            and _projection_paths(site.component, site.module)
        ]
        chosen |= dict.fromkeys(inside or [editable(model, name).component.name])
    return tuple(chosen)


def _projection_paths(component: Component, module: nn.Module) -> list[str]:
    if component.part is Part.DENOISER:
        names = ("to_k", "to_v") if component.kind is Kind.CROSS_ATTENTION else ()
    else:
        names = {
            Kind.SELF_ATTENTION: ("out_proj", "o"),
            Kind.MLP: ("fc2", "wo"),
        }.get(component.kind, ())
    return [name for name in names if isinstance(getattr(module, name, None), nn.Linear)]


def _at(module: nn.Module, name: str) -> nn.Linear:
    layer = getattr(module, name)
    assert isinstance(layer, nn.Linear)
    return layer


def _public_name(model: Networks, layer: nn.Linear) -> str:
    parts = [(model.family.denoiser, model.denoiser), *((e.name, e.module) for e in model.encoders)]
    return next(
        f"{part}.{path}.weight"
        for part, network in parts
        for path, module in network.named_modules()
        if module is layer
    )
