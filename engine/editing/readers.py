"""Reading the inputs of a text encoder's projection at the positions of prompts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from engine.editing.editable import Editable
from engine.editing.first_layer import FirstLayer, is_clip
from engine.editing.positions import Rows, prompt_rows
from engine.model.components import Networks, sites_of
from engine.model.hooks import HookPoint, Side, read_until
from engine.model.model import Diffusion, TextEncoder
from engine.model.tokens import Span, find_subjects
from schemas.caption import Caption
from schemas.component import Component, Kind
from schemas.edit_settings import RoleWeights
from schemas.errors import ConceptError, PlanError

TOGETHER = 64
"""Prompts that run together: T5-XXL's rows of 64 at 512 positions take 0.5 GB, and an MLP's of CLIP
ViT-L at 77 positions 60 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Captions as the text encoders read them."""

    ids: tuple[torch.Tensor, ...]
    """Token ids `_NT` of each text encoder, padded to the tokenizer's limit."""
    spans: tuple[Span, ...]
    """Position of each subject among the tokens of one encoder."""
    encoder: int = 0
    """Number of that encoder."""

    @property
    def length(self) -> int:
        """T of that encoder."""
        return self.ids[self.encoder].shape[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Inputs of a component's projections at single positions, and the residual stream after
    them."""

    key_PD: torch.Tensor
    """float64."""
    stream_PE: torch.Tensor | None
    """CLIP, T5, Qwen and Mistral: the residual stream after the component, float64. None where a
    norm stands between the projection and the stream (Gemma), and in the denoiser."""


class Reader(Protocol):
    """Reads rows of prompts with the model's weights at the time of the call."""

    encoder: int
    """Number of the text encoder whose token positions the rows are."""

    def rows(self, prompts: Prompts, roles: RoleWeights | None) -> Rows:
        """Return the positions that the component reads, with their weights; without roles all."""
        ...

    def read(self, prompts: Prompts, rows: Rows) -> Read:
        """Return the inputs of the component's projections at those rows."""
        ...


def read_prompts(
    model: Diffusion,
    component: Component,
    captions: Sequence[Caption],
    *,
    encoder: int | None = None,
) -> Prompts:
    """Return captions as the encoders read them, with subjects located by one encoder, by default
    the component's own.

    ConceptError: a caption does not fit the tokenizer.
    """
    number = model.encoders.index(_encoder_of(model, component)) if encoder is None else encoder
    tokenized = locate_subjects([e.tokenizer for e in model.encoders], captions)
    return Prompts(
        ids=tuple(ids_NT for ids_NT, _ in tokenized),
        spans=tuple(tokenized[number][1]),
        encoder=number,
    )


def locate_subjects(
    tokenizers: Sequence[Any], captions: Sequence[Caption]
) -> list[tuple[torch.Tensor, list[Span]]]:
    """Return each tokenizer's ids_NT of captions, with their subjects' spans; ConceptError: a
    caption does not fit it."""
    try:
        return [find_subjects(tokenizer, captions) for tokenizer in tokenizers]
    except PlanError as error:
        raise ConceptError(f"the concept cannot be edited: {error}") from error


def _encoder_of(model: Networks, component: Component) -> TextEncoder:
    name = component.name.split(".")[0]
    return next((e for e in model.encoders if e.name == name), model.encoders[0])


def chunks(prompts: Prompts, rows: Rows) -> Iterator[tuple[slice, Rows]]:
    """Yield every TOGETHER prompts that have rows, and these rows, in order."""
    for start in range(0, len(prompts.spans), TOGETHER):
        of_chunk = rows.where((rows.prompt_P >= start) & (rows.prompt_P < start + TOGETHER))
        if len(of_chunk):
            yield slice(start, start + TOGETHER), of_chunk


def encoder_reader(model: Diffusion, editable: Editable) -> Reader:
    """Return the reader of a text encoder's component: the first layer's own arithmetic where
    possible."""
    component = editable.component
    encoder = _encoder_of(model, component)
    index = model.encoders.index(encoder)
    if component.layer == 0 and is_clip(encoder.module):
        return _FirstLayerRows(encoder, index, component.kind)
    return _HookedRows(model, encoder, index, editable)


class _EncoderRows:
    """Rows that are an encoder's own token positions."""

    def __init__(self, encoder: int) -> None:
        self.encoder = encoder

    def rows(self, prompts: Prompts, roles: RoleWeights | None) -> Rows:
        return prompt_rows(prompts.spans, prompts.length, roles)


class _FirstLayerRows(_EncoderRows):
    """The first layer of CLIP, computed at the wanted rows alone."""

    def __init__(self, encoder: TextEncoder, index: int, kind: Kind) -> None:
        super().__init__(index)
        self._layer = FirstLayer(encoder.module, encoder.tokenizer.pad_token_id)
        self._is_mlp = kind is Kind.MLP

    def read(self, prompts: Prompts, rows: Rows) -> Read:
        attended = self._layer.attention(prompts.ids[self.encoder], prompts.spans, rows)
        if not self._is_mlp:
            return Read(key_PD=attended.key_PD, stream_PE=attended.stream_PD)
        key_PD, stream_PE = self._layer.mlp(attended.stream_PD)
        return Read(key_PD=key_PD, stream_PE=stream_PE)


class _HookedRows(_EncoderRows):
    """Any layer: the encoder runs up to the component, on the positions that the wanted ones
    depend on."""

    def __init__(
        self, model: Diffusion, encoder: TextEncoder, index: int, editable: Editable
    ) -> None:
        super().__init__(index)
        self._model, self._encoder = model, encoder
        (projection,) = editable.projections.values()
        layer = sites_of(model, [_layer_name(editable.component)])[_layer_name(editable.component)]
        stream = _stream(layer.module, editable.component.kind)
        self._spots = [HookPoint(projection, Side.INPUT), *([stream] if stream else [])]
        # T5 attends to later positions, and to padding too where nothing masks it (SD3, FLUX.1).
        self._may_cut = model.family.masks_padding or not hasattr(layer.module, "layer")

    def read(self, prompts: Prompts, rows: Rows) -> Read:
        parts = [self._read(prompts, *chunk) for chunk in chunks(prompts, rows)]
        streams = [stream_PE for _, stream_PE in parts if stream_PE is not None]
        return Read(
            key_PD=torch.cat([key_PD for key_PD, _ in parts]),
            stream_PE=torch.cat(streams) if streams else None,
        )

    def _read(
        self, prompts: Prompts, chunk: slice, rows: Rows
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the keys and the stream, if any, at the rows of a chunk of prompts."""
        needed = prompts.length
        if self._may_cut:
            last = max(span.eos for span in prompts.spans[chunk])
            needed = max(int(rows.place_P.max()), last) + 1
        ids_NT = prompts.ids[self.encoder][chunk, :needed].to(self._model.device)
        family, encoder = self._model.family, self._encoder
        at = (rows.prompt_P - chunk.start, rows.place_P)
        read = read_until(self._spots, lambda: family.run_encoder(encoder, ids_NT))
        key_PD, *streams = (read_NTD.cpu()[at].double() for read_NTD in read)
        return key_PD, streams[0] if streams else None


def _layer_name(component: Component) -> str:
    return component.name.rpartition(".")[0]


def _stream(layer: Any, kind: Kind) -> HookPoint | None:
    """Return the hook point of the residual stream after a layer's self-attention or MLP; None
    where what the projection returns is normed before it is added, as in Gemma."""
    if hasattr(layer, "layer_norm2"):  # CLIP
        is_attention = kind is Kind.SELF_ATTENTION
        return HookPoint(layer.layer_norm2, Side.INPUT) if is_attention else HookPoint(layer)
    if hasattr(layer, "layer"):  # T5
        return HookPoint(layer.layer[0 if kind is Kind.SELF_ATTENTION else -1])
    if not hasattr(layer, "post_feedforward_layernorm"):  # Qwen, Mistral
        is_attention = kind is Kind.SELF_ATTENTION
        after = HookPoint(layer.post_attention_layernorm, Side.INPUT)
        return after if is_attention else HookPoint(layer)
    return None
