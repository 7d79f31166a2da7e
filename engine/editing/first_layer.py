"""Inputs and outputs of CLIP's first layer, computed at the wanted positions only, in float64.

Before the first attention a token's row depends on its id and its position alone. So layer norm,
queries, keys and values are computed once for each pair that occurs in any prompt, however many
prompts say it, and the pads' once for all; attention and MLP run at the wanted positions only.
The rest of the encoder never runs. Tested against the encoder's own forward pass.

Shapes: N prompts, T positions, W positions up to the last EOS, U distinct (id, position) pairs,
P wanted positions, R wanted positions of one prompt, S = W + T what they may see, H heads, d head
width, D width, F the MLP's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from engine.editing.positions import Rows
from engine.model.tokens import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Attended:
    """Rows of the first attention."""

    key_PD: torch.Tensor
    """The input of the output projection: all heads' results."""
    stream_PD: torch.Tensor
    """The residual stream after the attention."""


def is_clip(text_encoder: Any) -> bool:
    """Return whether a text encoder is CLIP's, whose first layer is computed here."""
    return text_encoder.config.model_type == "clip_text_model"


class FirstLayer:
    """The first layer of a CLIP text encoder, with its weights at the time of the call."""

    def __init__(self, text_encoder: Any, pad_id: int) -> None:
        """Read the layer of a CLIPTextModel, with or without projection."""
        self._pad_id = pad_id
        self._model = getattr(text_encoder, "text_model", text_encoder)
        self._layer = self._model.encoder.layers[0]
        self._heads = self._layer.self_attn.num_heads

    def attention(self, ids_NT: torch.Tensor, spans: Sequence[Span], rows: Rows) -> Attended:
        """Return the attention's rows; `spans` give the position of each prompt's EOS."""
        eos_N = torch.tensor([span.eos for span in spans])
        width = int(eos_N.max()) + 1
        hidden = _Hidden(self._model, self._layer, ids_NT, width)
        key_PD = self._heads_of(hidden, ids_NT, eos_N, rows)
        embedding_PD = hidden.embedding(ids_NT[rows.prompt_P, rows.place_P], rows.place_P)
        said_PD = _linear(self._layer.self_attn.out_proj, key_PD)
        return Attended(key_PD=key_PD, stream_PD=embedding_PD + said_PD)

    def mlp(self, stream_PD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the input of fc2, `_PF`, and the residual stream after it, for attention rows."""
        mlp = self._layer.mlp
        read_PD = _norm(self._layer.layer_norm2, stream_PD)
        key_PF = mlp.activation_fn(_linear(mlp.fc1, read_PD))
        return key_PF, stream_PD + _linear(mlp.fc2, key_PF)

    def _heads_of(
        self, hidden: "_Hidden", ids_NT: torch.Tensor, eos_N: torch.Tensor, rows: Rows
    ) -> torch.Tensor:
        """Return every head's result at the wanted rows, `_PD`.

        Each row attends to the words of its own prompt and to pads that all prompts share.
        """
        attention, width = self._layer.self_attn, hidden.width
        split = {"heads": self._heads}
        slot_NR, order_P = _by_prompt(rows, len(ids_NT))
        in_prompt = (rows.prompt_P, slice(None), order_P)
        query_PHd = _split(hidden.projected(attention.q_proj, rows), **split)
        query_PHd = query_PHd * query_PHd.shape[-1] ** -0.5
        key_NHWd, value_NHWd = (_split(h, **split).transpose(1, 2) for h in hidden.words(attention))
        key_HTd, value_HTd = (
            _split(h, **split).transpose(0, 1) for h in hidden.pads(attention, self._pad_id)
        )
        query_NHRd = query_PHd[slot_NR.clamp(min=0)].transpose(1, 2)
        score_PHW = (query_NHRd @ key_NHWd.mT)[in_prompt]
        score_PHT = (query_PHd.transpose(0, 1) @ key_HTd.mT).transpose(0, 1)
        score_PHS = torch.cat([score_PHW, score_PHT], dim=-1)
        seen_PS = _seen(rows.place_P, eos_N[rows.prompt_P], width, ids_NT.shape[1])
        weight_PHS = score_PHS.masked_fill_(~seen_PS[:, None], float("-inf")).softmax(-1)
        weight_NHRW = weight_PHS[slot_NR.clamp(min=0), :, :width].transpose(1, 2)
        word_PHd = (weight_NHRW @ value_NHWd)[in_prompt]
        pad_PHd = (weight_PHS[..., width:].transpose(0, 1) @ value_HTd).transpose(0, 1)
        return (word_PHd + pad_PHd).flatten(1)


class _Hidden:
    """Layer-normed embeddings of the distinct (id, position) pairs of prompts."""

    def __init__(self, model: Any, layer: Any, ids_NT: torch.Tensor, width: int) -> None:
        self.width = width
        self._embeddings, self._norm = model.embeddings, layer.layer_norm1
        place_T = torch.arange(ids_NT.shape[1])
        self._codes = _code(ids_NT, place_T)
        codes_U, index = torch.unique(self._codes[:, :width], return_inverse=True)
        self._index_NW = index
        self._ids_U, self._place_U = codes_U // len(place_T), codes_U % len(place_T)
        self._hidden_UD = _norm(self._norm, self.embedding(self._ids_U, self._place_U))

    def embedding(self, ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return token and position embeddings, one row per pair."""
        tables = self._embeddings
        token = F.embedding(
            ids.to(tables.token_embedding.weight.device), tables.token_embedding.weight
        )
        place = F.embedding(
            places.to(tables.position_embedding.weight.device), tables.position_embedding.weight
        )
        return token.cpu().double() + place.cpu().double()

    def words(self, attention: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of every prompt's positions up to the last EOS, `_NWD`."""
        key_UD, value_UD = (
            _linear(p, self._hidden_UD) for p in (attention.k_proj, attention.v_proj)
        )
        return key_UD[self._index_NW], value_UD[self._index_NW]

    def pads(self, attention: Any, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of a pad at each position, `_TD`."""
        place_T = torch.arange(self._codes.shape[1])
        hidden_TD = _norm(self._norm, self.embedding(torch.full_like(place_T, pad_id), place_T))
        return _linear(attention.k_proj, hidden_TD), _linear(attention.v_proj, hidden_TD)

    def projected(self, projection: nn.Linear, rows: Rows) -> torch.Tensor:
        """Return a projection of the wanted rows, computed once for each distinct pair."""
        wanted_P = self._codes[rows.prompt_P, rows.place_P]
        codes, index_P = torch.unique(wanted_P, return_inverse=True)
        length = self._codes.shape[1]
        hidden = _norm(self._norm, self.embedding(codes // length, codes % length))
        return _linear(projection, hidden)[index_P]


def _code(ids_NT: torch.Tensor, place_T: torch.Tensor) -> torch.Tensor:
    return ids_NT * len(place_T) + place_T


def _seen(place_P: torch.Tensor, eos_P: torch.Tensor, width: int, length: int) -> torch.Tensor:
    """Return whether a row sees each of its prompt's words, then each pad, `_PS`, S = W + T."""
    word_W, pad_T = torch.arange(width), torch.arange(length)
    word_PW = (word_W <= place_P[:, None]) & (word_W <= eos_P[:, None])
    pad_PT = (pad_T <= place_P[:, None]) & (pad_T > eos_P[:, None])
    return torch.cat([word_PW, pad_PT], dim=1)


def _by_prompt(rows: Rows, prompts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of each prompt, `_NR` (-1: none), and each row's place among its prompt's."""
    count_N = torch.bincount(rows.prompt_P, minlength=prompts)
    start_N = count_N.cumsum(0) - count_N
    order_P = torch.arange(len(rows)) - start_N[rows.prompt_P]
    slot_NR = torch.full((prompts, int(count_N.max())), -1)
    slot_NR[rows.prompt_P, order_P] = torch.arange(len(rows))
    return slot_NR, order_P


def _split(x: torch.Tensor, *, heads: int) -> torch.Tensor:
    return x.unflatten(-1, (heads, -1))


def _linear(module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    bias = None if module.bias is None else module.bias.cpu().double()
    return F.linear(x, module.weight.cpu().double(), bias)


def _norm(module: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    weight, bias = module.weight.cpu().double(), module.bias.cpu().double()
    return F.layer_norm(x, module.normalized_shape, weight, bias, module.eps)
