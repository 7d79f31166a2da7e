"""Keys of an edit and the wanted changes of its outputs, summed batch by batch.

A batch depends on the concepts alone, not on the worker that reads it: joint, sequential and
distributed edits sum the same numbers in the same order.

Shapes: N prompts, T tokens, P rows, D a projection's inputs, E its outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from engine.editing.closed_form import KeyStatistics, sums_of
from engine.editing.delta import replaced
from engine.editing.denoiser_readers import open_readers
from engine.editing.editable import Editable
from engine.editing.pairs import PromptPair
from engine.editing.positions import Rows, facing_places
from engine.editing.readers import Prompts, Read, Reader, read_prompts
from engine.model.model import Diffusion
from schemas.caption import Caption
from schemas.edit_settings import RoleWeights

BATCH = 512
"""Prompts that are read together, which bounds the memory of an edit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Rows of one batch: keys, the wanted change of each projection there, and weights."""

    key_PD: torch.Tensor
    ahead_PX: torch.Tensor
    """How much the replacement is ahead: X is E in the residual stream, and D among the inputs."""
    weights: Mapping[str, torch.Tensor | None]
    """W0_ED, by which a projection's output follows its input, by public names; None: `ahead_PX`
    is that of the output itself."""
    weight_P: torch.Tensor

    @property
    def changes(self) -> dict[str, torch.Tensor]:
        """r_PE by the projection's public name."""
        return {
            name: self.ahead_PX if weight_ED is None else self.ahead_PX @ _exact(weight_ED).T
            for name, weight_ED in self.weights.items()
        }

    def sums(self) -> KeyStatistics:
        """Return their sums; r_PE of projections that share their inputs is never held."""
        sums = sums_of(self.key_PD, {"ahead": self.ahead_PX}, self.weight_P)
        cross_XD = sums.cross["ahead"]
        cross = {
            name: cross_XD if weight_ED is None else _exact(weight_ED) @ cross_XD
            for name, weight_ED in self.weights.items()
        }
        return replace(sums, cross=cross)


@torch.inference_mode()
def pair_keys(
    model: Diffusion,
    editable: Editable,
    pairs: Sequence[PromptPair],
    *,
    roles: RoleWeights,
    edited: Mapping[str, torch.Tensor],
) -> Keys:
    """Return the keys of concept prompts and the wanted changes of the outputs there.

    CLIP, T5, Qwen and Mistral: the residual stream after the component becomes the replacement
    prompt's at the facing position. Gemma and the denoiser: the output becomes W0 k'. The wanted
    outputs are those of the unedited model, the keys those of the model with the weights `edited`
    of earlier components, so that the rest is solved for.
    """
    sources = [pair.source for pair in pairs]
    targets, index_N = _distinct([pair.replacement for pair in pairs])
    weight_N = torch.tensor([pair.weight for pair in pairs], dtype=torch.float64)
    parts: list[Keys] = []
    for reader in open_readers(model, editable):
        said, facing = (
            read_prompts(model, editable.component, captions, encoder=reader.encoder)
            for captions in (sources, targets)
        )
        rows = reader.rows(said, roles)
        spans = [facing.spans[n] for n in index_N.tolist()]
        place_P = facing_places(rows, said.spans, spans).clamp(max=facing.length - 1)
        wanted = _read_distinct(reader, facing, index_N[rows.prompt_P], place_P)
        with replaced(model, edited):
            current = reader.read(said, rows)
        weight_P = rows.weight_P * weight_N[rows.prompt_P]
        parts.append(_keys(editable, current, wanted, weight_P))
    return _joined(parts)


@torch.inference_mode()
def kept_keys(
    model: Diffusion,
    editable: Editable,
    captions: Sequence[Caption],
    *,
    roles: RoleWeights | None,
    edited: Mapping[str, torch.Tensor],
) -> Keys:
    """Return the keys of captions whose outputs should stay those of the unedited model.

    `roles` None: every position counts alike.
    """
    parts: list[Keys] = []
    for reader in open_readers(model, editable):
        prompts = read_prompts(model, editable.component, captions, encoder=reader.encoder)
        rows = reader.rows(prompts, roles)
        wanted = reader.read(prompts, rows)
        current = wanted
        if edited:
            with replaced(model, edited):
                current = reader.read(prompts, rows)
        parts.append(_keys(editable, current, wanted, rows.weight_P))
    return _joined(parts)


def _keys(editable: Editable, current: Read, wanted: Read, weight_P: torch.Tensor) -> Keys:
    """Return the rows of one reader."""
    weights: dict[str, torch.Tensor | None]
    if current.stream_PE is not None and wanted.stream_PE is not None:
        (name,) = editable.projections
        weights = {name: None}
        ahead_PX = wanted.stream_PE - current.stream_PE
    else:
        weights = {n: p.weight.detach() for n, p in editable.projections.items()}
        ahead_PX = wanted.key_PD - current.key_PD
    return Keys(key_PD=current.key_PD, ahead_PX=ahead_PX, weights=weights, weight_P=weight_P)


def _joined(parts: Sequence[Keys]) -> Keys:
    """Return the rows of all parts, one after another."""
    return Keys(
        key_PD=torch.cat([part.key_PD for part in parts]),
        ahead_PX=torch.cat([part.ahead_PX for part in parts]),
        weights=parts[0].weights,
        weight_P=torch.cat([part.weight_P for part in parts]),
    )


def _exact(weight_ED: torch.Tensor) -> torch.Tensor:
    return weight_ED.cpu().double()


def _distinct(captions: Sequence[Caption]) -> tuple[list[Caption], torch.Tensor]:
    """Return the captions without repeats and each one's place among them, `_N`."""
    place: dict[Caption, int] = {}
    index = [place.setdefault(caption, len(place)) for caption in captions]
    return list(place), torch.tensor(index)


def _read_distinct(
    reader: Reader, prompts: Prompts, prompt_P: torch.Tensor, place_P: torch.Tensor
) -> Read:
    """Return the inputs at rows that may repeat; each distinct row is read once."""
    code_U, index_P = torch.unique(prompt_P * prompts.length + place_P, return_inverse=True)
    prompt_U, place_U = code_U // prompts.length, code_U % prompts.length
    rows = Rows(prompt_P=prompt_U, place_P=place_U, weight_P=torch.ones(len(code_U)))
    read = reader.read(prompts, rows)
    stream = None if read.stream_PE is None else read.stream_PE[index_P]
    return Read(key_PD=read.key_PD[index_P], stream_PE=stream)
