"""Reading the inputs of an editable projection at the positions of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from engine.editing.editable import Editable
from engine.editing.first_layer import FirstLayer, is_clip
from engine.editing.positions import Rows
from engine.model.components import Networks, sites_of
from engine.model.hooks import HookPoint, Side, read_until
from engine.model.model import Diffusion, TextEncoder
from engine.model.tokens import Span, find_subjects
from schemas.caption import Caption
from schemas.component import Component, Kind, Part
from schemas.errors import ConceptError, PlanError


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Captions as the text encoders read them."""

    ids: tuple[torch.Tensor, ...]
    """Token ids `_NT` of each text encoder, padded to the tokenizer's limit."""
    spans: tuple[Span, ...]
    """Position of each subject among the tokens."""

    @property
    def length(self) -> int:
        """T."""
        return self.ids[0].shape[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Inputs of a component's projections at single positions, and the residual stream after
    them."""

    key_PD: torch.Tensor
    """float64."""
    stream_PE: torch.Tensor | None
    """Text encoder: the residual stream after the component, float64. UNet: none."""


class Reader(Protocol):
    """Reads rows of prompts with the model's weights at the time of the call."""

    def read(self, prompts: Prompts, rows: Rows) -> Read:
        """Return the inputs of the component's projections at those rows."""
        ...


def read_prompts(model: Diffusion, component: Component, captions: Sequence[Caption]) -> Prompts:
    """Return captions as the encoders read them, with subjects located by the component's own
    encoder.

    ConceptError: a caption does not fit the tokenizer.
    """
    encoder = _encoder_of(model, component)
    try:
        tokenized = {e.name: find_subjects(e.tokenizer, captions) for e in model.encoders}
    except PlanError as error:
        raise ConceptError(f"the concept cannot be edited: {error}") from error
    return Prompts(
        ids=tuple(ids_NT for ids_NT, _ in tokenized.values()),
        spans=tuple(tokenized[encoder.name][1]),
    )


def _encoder_of(model: Networks, component: Component) -> TextEncoder:
    name = component.name.split(".")[0]
    return next((e for e in model.encoders if e.name == name), model.encoders[0])


def open_reader(model: Diffusion, editable: Editable) -> Reader:
    """Return the reader of a component's rows: the first layer's own arithmetic where possible."""
    component = editable.component
    if component.part is Part.DENOISER:
        return _TextRows(model)
    encoder = _encoder_of(model, component)
    index = model.encoders.index(encoder)
    if component.layer == 0 and is_clip(encoder.module):
        return _FirstLayerRows(encoder, index, component.kind)
    return _HookedRows(model, encoder, index, editable)


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
    """Any layer: the encoder runs up to the component, on the positions up to the last wanted
    one."""

    def __init__(
        self, model: Diffusion, encoder: TextEncoder, index: int, editable: Editable
    ) -> None:
        self._model, self._encoder, self._index = model, encoder, index
        (projection,) = editable.projections.values()
        layer = sites_of(model, [_layer_name(editable.component)])[_layer_name(editable.component)]
        self._spots = (
            HookPoint(projection, Side.INPUT),
            _stream(layer.module, editable.component.kind),
        )

    def read(self, prompts: Prompts, rows: Rows) -> Read:
        # Attention is causal, or masks padding: no position needs later ones.
        needed = max(int(rows.place_P.max()), max(span.eos for span in prompts.spans)) + 1
        ids_NT = prompts.ids[self._index][:, :needed].to(self._model.device)
        family, encoder = self._model.family, self._encoder.module
        at = (rows.prompt_P, rows.place_P)
        key_NTD, stream_NTE = read_until(self._spots, lambda: family.run_encoder(encoder, ids_NT))
        return Read(key_PD=key_NTD.cpu()[at].double(), stream_PE=stream_NTE.cpu()[at].double())


def _layer_name(component: Component) -> str:
    return component.name.rpartition(".")[0]


def _stream(layer: Any, kind: Kind) -> HookPoint:
    """Return the hook point of the residual stream after a layer's self-attention or MLP."""
    if hasattr(layer, "layer_norm2"):  # CLIP
        is_attention = kind is Kind.SELF_ATTENTION
        return HookPoint(layer.layer_norm2, Side.INPUT) if is_attention else HookPoint(layer)
    return HookPoint(layer.layer[0 if kind is Kind.SELF_ATTENTION else -1])  # T5


class _TextRows:
    """The rows that the UNet's cross-attentions read: the encoders run to their ends."""

    def __init__(self, model: Diffusion) -> None:
        self._model = model

    def read(self, prompts: Prompts, rows: Rows) -> Read:
        ids = [ids_NT.to(self._model.device) for ids_NT in prompts.ids]
        text_NTD = self._model.family.encode(self._model, ids).text_RLD
        key_PD = text_NTD.cpu()[rows.prompt_P, rows.place_P].double()
        return Read(key_PD=key_PD, stream_PE=None)
