"""What an edit can change: the projections of a component, and what they read of a prompt.

Text encoders: the output projection of a self-attention or MLP (DiffQuickFix: out_proj of the first
self-attention). UNet: `to_k` and `to_v` of a cross-attention, which read the encoders' final rows
(LocoEdit, Basu et al. 2024; UCE, Gandikota et al. 2024).

Shapes: N prompts, T tokens, P rows, D a projection's inputs, E its outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from engine.editing.first_layer import FirstLayer, is_clip
from engine.editing.positions import Rows
from engine.model.components import Networks, list_sites, sites_of
from engine.model.hooks import Side, Spot, read_until
from engine.model.model import TextEncoder
from engine.model.opening import Diffusion
from engine.model.tokens import Span, find_subjects
from schemas.component import Component, Kind, Part
from schemas.errors import ConceptError, PlanError, UnknownComponent
from schemas.plan import Caption


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Captions as the text encoders read them."""

    ids: tuple[torch.Tensor, ...]
    """Token ids `_NT` of each text encoder, padded to the tokenizer's limit."""
    spans: tuple[Span, ...]
    """Where each subject is among them."""

    @property
    def length(self) -> int:
        """T."""
        return self.ids[0].shape[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What a component's projections read at single positions, and what came of it."""

    key_PD: torch.Tensor
    """float64."""
    stream_PE: torch.Tensor | None
    """Text encoder: the residual stream after the component, float64. UNet: none."""


class Reader(Protocol):
    """Reads rows of prompts with the weights that the model has at the time."""

    def read(self, prompts: Prompts, rows: Rows) -> Read:
        """Return what the component's projections read at those rows."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Editable:
    """A component that can be edited."""

    component: Component
    projections: dict[str, nn.Linear]
    """By their weights' public names, `text_encoder.encoder.layers.0.self_attn.out_proj.weight`."""


def editable(model: Networks, component: str) -> Editable:
    """Return a component's projections; UnknownComponent if there is none that an edit can change.

    Works on a skeleton too.
    """
    site = sites_of(model, [component])[component]
    paths = _projection_paths(site.component, site.module)
    found = {path: _at(site.module, path) for path in paths}
    if not found:
        raise UnknownComponent(
            f"{component} cannot be edited: an edit needs a self_attn or mlp of a text encoder, "
            "or a cross_attn of the UNet"
        )
    return Editable(
        component=site.component,
        projections={_public_name(model, layer): layer for layer in found.values()},
    )


def editables(model: Networks, names: Sequence[str]) -> tuple[str, ...]:
    """Return the components that are named, each once; a network, block or layer: all inside it.

    UnknownComponent: a name is unknown or there is nothing in it that can be edited.
    """
    sites = list_sites(model)
    found: dict[str, None] = {}
    for name in names:
        inside = [
            site.component.name
            for site in sites
            if site.component.name.startswith(f"{name}.")
            and _projection_paths(site.component, site.module)
        ]
        found |= dict.fromkeys(inside or [editable(model, name).component.name])
    return tuple(found)


def _projection_paths(component: Component, module: nn.Module) -> list[str]:
    if component.part is Part.UNET:
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
    parts = [("unet", model.unet), *((e.name, e.module) for e in model.encoders)]
    return next(
        f"{part}.{path}.weight"
        for part, network in parts
        for path, module in network.named_modules()
        if module is layer
    )


def read_prompts(model: Diffusion, component: Component, captions: Sequence[Caption]) -> Prompts:
    """Return captions as the encoders read them, subjects found by the component's own encoder.

    ConceptError: a caption does not fit the tokenizer.
    """
    own = _encoder_of(model, component)
    try:
        tokenized = {e.name: find_subjects(e.tokenizer, captions) for e in model.encoders}
    except PlanError as error:
        raise ConceptError(f"the concept cannot be edited: {error}") from error
    return Prompts(
        ids=tuple(ids_NT for ids_NT, _ in tokenized.values()), spans=tuple(tokenized[own.name][1])
    )


def _encoder_of(model: Networks, component: Component) -> TextEncoder:
    name = component.name.split(".")[0]
    return next((e for e in model.encoders if e.name == name), model.encoders[0])


def open_reader(model: Diffusion, target: Editable) -> Reader:
    """Return what reads a component's rows: the first layer's own arithmetic where it serves."""
    component = target.component
    if component.part is Part.UNET:
        return _TextRows(model)
    encoder = _encoder_of(model, component)
    index = model.encoders.index(encoder)
    if component.layer == 0 and is_clip(encoder.module):
        return _FirstLayerRows(encoder, index, component.kind)
    return _HookedRows(model, encoder, index, target)


class _FirstLayerRows:
    """The first layer of CLIP, computed at the wanted rows alone."""

    def __init__(self, encoder: TextEncoder, index: int, kind: Kind) -> None:
        pad_id = encoder.tokenizer.pad_token_id
        self._layer, self._index = FirstLayer(encoder.module, pad_id), index
        self._is_mlp = kind is Kind.MLP

    def read(self, prompts: Prompts, rows: Rows) -> Read:
        attended = self._layer.attention(prompts.ids[self._index], prompts.spans, rows)
        if not self._is_mlp:
            return Read(key_PD=attended.key_PD, stream_PE=attended.stream_PD)
        key_PD, stream_PE = self._layer.mlp(attended.stream_PD)
        return Read(key_PD=key_PD, stream_PE=stream_PE)


class _HookedRows:
    """Any layer: the encoder runs as far as the component, on positions as far as are wanted."""

    def __init__(
        self, model: Diffusion, encoder: TextEncoder, index: int, target: Editable
    ) -> None:
        self._model, self._encoder, self._index = model, encoder, index
        (projection,) = target.projections.values()
        layer = sites_of(model, [_layer_name(target.component)])[_layer_name(target.component)]
        self._spots = (Spot(projection, Side.INPUT), _stream(layer.module, target.component.kind))

    def read(self, prompts: Prompts, rows: Rows) -> Read:
        # Attention is causal, or masks padding: no position needs what stands after it.
        needed = max(int(rows.place_P.max()), max(span.eos for span in prompts.spans)) + 1
        ids_NT = prompts.ids[self._index][:, :needed].to(self._model.device)
        family, encoder = self._model.family, self._encoder.module
        at = (rows.prompt_P, rows.place_P)
        key_NTD, stream_NTE = read_until(self._spots, lambda: family.run_encoder(encoder, ids_NT))
        return Read(key_PD=key_NTD.cpu()[at].double(), stream_PE=stream_NTE.cpu()[at].double())


def _layer_name(component: Component) -> str:
    return component.name.rpartition(".")[0]


def _stream(layer: Any, kind: Kind) -> Spot:
    """Return where the residual stream passes after a layer's self-attention or MLP."""
    if hasattr(layer, "layer_norm2"):  # CLIP
        is_attention = kind is Kind.SELF_ATTENTION
        return Spot(layer.layer_norm2, Side.INPUT) if is_attention else Spot(layer)
    return Spot(layer.layer[0 if kind is Kind.SELF_ATTENTION else -1])  # T5


class _TextRows:
    """The rows that the UNet's cross-attentions read: the encoders run to their ends."""

    def __init__(self, model: Diffusion) -> None:
        self._model = model

    def read(self, prompts: Prompts, rows: Rows) -> Read:
        ids = [ids_NT.to(self._model.device) for ids_NT in prompts.ids]
        text_NTD = self._model.family.encode(self._model, ids).text_RLD
        key_PD = text_NTD.cpu()[rows.prompt_P, rows.place_P].double()
        return Read(key_PD=key_PD, stream_PE=None)
