"""Tiny pipelines whose text encoder is a language model, with tokenizers and chat templates of the
published ones' form.

The templates are written after what is known of Qwen3's; no published tokenizer was read.
"""

import re
from typing import Any

import diffusers
import torch
from tokenizers import pre_tokenizers
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from engine.model.families.qwen_image import TEMPLATE
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
ROLES = "system\nuser\nassistant"


def qwen_tokenizer(*texts: str) -> Qwen2Tokenizer:
    """Return a byte-level tokenizer with merges from a few sentences; each word of `texts` is one
    token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Whole words first: a later merge takes none of their letters away.
    whole, some = (
        [
            f"{blank and 'Ġ'}{word}"
            for text in said
            for blank, word in re.findall(r"( ?)(\w+)", text)
        ]
        for said in ((ROLES, *texts), SENTENCES)
    )
    merges = list(dict.fromkeys([*learn_merges(whole, 10_000), *learn_merges(some, 60)]))
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


def build_qwen_image(**options: Any) -> Any:
    """Return Qwen-Image: Qwen2.5-VL under an instruction of 34 tokens, joint blocks."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer(TEMPLATE)
    text = {
        name: value
        for name, value in qwen3_config(tokenizer, num_hidden_layers=2).to_dict().items()
        if name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    }
    config = Qwen2_5_VLConfig(
        text_config={
            **text,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "initializer_range": 0.3,
            "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
        },
        initializer_range=0.3,
    )
    transformer = diffusers.QwenImageTransformer2DModel(
        **{
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": 16,
            "axes_dims_rope": (2, 2, 4),
            **options,
        }
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.8, 1.2, 1.0],
    )
    return diffusers.QwenImagePipeline(
        tokenizer=tokenizer,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        vae=vae,
        transformer=open_gates(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLOW, use_dynamic_shifting=True),
    )


def build_klein(*, is_distilled: bool = True, **options: Any) -> Any:
    """Return FLUX.2 klein: three states of Qwen3 side by side, fused single blocks.

    64 channels, so that PyTorch's vectors end with a row: three rows of 16 differ in the last bit.
    """
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    config = qwen3_config(tokenizer, hidden_size=8, intermediate_size=8, num_hidden_layers=28)
    transformer = diffusers.Flux2Transformer2DModel(
        **{
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 4,
            "joint_attention_dim": 24,
            "axes_dims_rope": (4, 4, 4, 4),
            "guidance_embeds": False,
            **options,
        }
    )
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=16,
        layers_per_block=1,
    )
    with torch.no_grad():
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(0.5, 2)
    return diffusers.Flux2KleinPipeline(
        tokenizer=tokenizer,
        text_encoder=Qwen3ForCausalLM(config),
        vae=vae,
        transformer=open_gates(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLOW, use_dynamic_shifting=True),
        is_distilled=is_distilled,
    )
