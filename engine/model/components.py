"""Naming and finding the components of a model, in the network's order of execution."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import nn

from engine.model.hooks import HookPoint
from engine.model.model import Family, TextEncoder
from engine.model.sites import NetworkSite, Positions, positions_at, text_sites
from schemas.component import Component, Kind, Part
from schemas.errors import UnknownComponent


class Networks(Protocol):
    """An object with components: an opened model or its skeleton."""

    @property
    def name(self) -> str: ...
    @property
    def family(self) -> Family: ...
    @property
    def encoders(self) -> tuple[TextEncoder, ...]: ...
    @property
    def denoiser(self) -> Any: ...


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
    positions: Positions | None = None
    """Token positions of the activation that belong to the component: those of the image or of the
    text in a single stream, or by default all."""
    increments: tuple[HookPoint, ...] = ()
    """Hook points of all that the component adds to its input; none where it adds its whole
    output."""

    def span(self, cells: int) -> slice | None:
        """Return its token positions at a latent of so many cells; None: all."""
        return positions_at(self.positions, cells)


def list_sites(model: Networks) -> list[Site]:
    """Return every component's site, the denoiser's first, each network in its order of execution.

    A UNet has 70 of the kinds that the paper traces in Stable Diffusion 1 and 2, 227 in SDXL. Text
    encoders: heads, self-attention and MLP of every layer, and the layer.
    """
    family = model.family
    denoiser = [(family.denoiser, found) for found in family.sites(model.denoiser)]
    text = [(e.name, found) for e in model.encoders for found in _encoder_sites(family, e)]
    return [
        *(_site(name, found, Part.DENOISER, order) for order, (name, found) in enumerate(denoiser)),
        *(_site(name, found, Part.TEXT_ENCODER, order) for order, (name, found) in enumerate(text)),
    ]


def _encoder_sites(family: Family, encoder: TextEncoder) -> list[NetworkSite]:
    """Return a text encoder's components; those of last layers that nothing reads are dead."""
    found = list(text_sites(encoder.module))
    read = family.read_layers(encoder.name, found[-1].layer + 1)
    return [replace(site, is_dead=site.layer >= read) for site in found]


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


def _site(network: str, found: NetworkSite, part: Part, order: int) -> Site:
    component = Component(
        name=f"{network}.{found.path}",
        part=part,
        kind=found.kind,
        order=order,
        layer=found.layer,
        num_parameters=sum(p.numel() for p in found.module.parameters()) // found.share,
        has_contribution=bool(found.increments),
        is_dead=found.is_dead,
        in_single_stream=found.positions is not None,
    )
    return Site(
        component=component,
        module=found.module,
        spot=found.spot,
        channels=found.channels,
        positions=found.positions,
        increments=found.increments,
    )
