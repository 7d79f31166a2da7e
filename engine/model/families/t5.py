"""The tokenizer, mask and data type of T5, as pipelines use them.

Shapes: R rows, L token positions.
"""

import copy
from typing import Any

import torch
from tokenizers import normalizers


def lowering_tokenizer(tokenizer: Any, *, length: int) -> Any:
    """Return a tokenizer of that many positions that lowers and strips captions.

    In its normalizer, so that a token's offsets are those of the caption as written.
    """
    prepared = with_length(tokenizer, length)
    backend = prepared.backend_tokenizer
    own = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Strip(), *own])
    return prepared


def with_length(tokenizer: Any, length: int) -> Any:
    """Return a copy of a tokenizer that pads to that many positions; T5 itself has no limit."""
    prepared = copy.deepcopy(tokenizer)
    prepared.model_max_length = length
    return prepared


def padding_mask(encoder: Any, ids_RL: torch.Tensor) -> torch.Tensor:
    """Return 1 where a token is not padding, as integers; padding follows a text's last token.

    A caption that says "<pad>" has that token within it, which the pipelines' masks leave on.
    """
    is_text_RL = ids_RL != encoder.config.pad_token_id
    return (is_text_RL.flip(1).cumsum(1).flip(1) > 0).long()


def run_masked(encoder: Any, ids_RL: torch.Tensor) -> Any:
    """Return T5's output with a mask of the tokens that are not padding."""
    mask_RL = padding_mask(encoder, ids_RL)
    # transformers asks whether a mask hides anything: on the meta device there are no values.
    return encoder(ids_RL, attention_mask=None if ids_RL.is_meta else mask_RL)


def t5_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return float32 in place of float16, in which T5's feed-forward overflows."""
    return torch.float32 if dtype is torch.float16 else dtype
