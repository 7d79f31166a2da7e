"""Tiny pipelines whose text encoder is a language model, with tokenizers and chat templates of the
published ones' form.

The templates are written after what is known of Qwen3's; no published tokenizer was read.
"""

import re
from typing import Any

import diffusers
import torch
from tokenizers import pre_tokenizers
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

from tests.models.transformers import FLOW, open_gates, tiny_vae
from tests.models.vocabulary import SENTENCES, learn_merges

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""The padding, and the beginning and the end of a message."""
QWEN_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
"""A chat template of the form of Qwen3's, without tools."""
ROLES = "system user assistant"


def qwen_tokenizer(*texts: str) -> Qwen2Tokenizer:
    """Return a byte-level tokenizer with merges from a few sentences; each word of `texts` is one
    token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [f"Ġ{word}" for text in SENTENCES for word in re.findall(r"\w+", text)]
    merges = learn_merges(words, 60)
    for text in (ROLES, *texts):
        spelled = re.findall(r"\w+", text.replace(" ", "Ġ").replace("Ġ", " Ġ"))
        merges += [pair for pair in learn_merges(spelled, 10_000) if pair not in merges]
    tokens = dict.fromkeys([*letters, *("".join(pair) for pair in merges)])
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *tokens])}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.add_tokens(["<|im_start|>"], special_tokens=True)
    tokenizer.chat_template = QWEN_TEMPLATE
    return tokenizer


def qwen3_config(tokenizer: Any, **options: Any) -> Qwen3Config:
    """Return the config of a small Qwen3; its token of padding is not said, as in the hub's."""
    return Qwen3Config(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "initializer_range": 0.3,
            **options,
        }
    )


def build_z_image(**options: Any) -> Any:
    """Return Z-Image: refiners of image and text, and layers of both."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    transformer = diffusers.ZImageTransformer2DModel(
        **{
            "in_channels": 4,
            "dim": 24,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": 16,
            "axes_dims": [4, 4, 4],
            **options,
        }
    )
    with torch.no_grad():
        for name in ("x_pad_token", "cap_pad_token"):
            getattr(transformer, name).normal_()
    return diffusers.ZImagePipeline(
        tokenizer=tokenizer,  # pyright: ignore
        text_encoder=Qwen3Model(qwen3_config(tokenizer)),
        vae=tiny_vae(shift_factor=0.11),
        transformer=open_gates(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLOW, use_dynamic_shifting=True),
    )
