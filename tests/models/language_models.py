"""Tiny pipelines whose text encoder is a language model, with tokenizers and chat templates of the
published ones' form.

The templates are written after what is known of Qwen3's; no published tokenizer was read.
"""

import re
from collections.abc import Iterable
from typing import Any

import diffusers
import torch
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    PreTrainedTokenizerFast,
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
MISTRAL_SPECIAL = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "<pad>",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
)  # fmt: skip
MISTRAL_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {{- '[SYSTEM_PROMPT]' + message.content[0].text + '[/SYSTEM_PROMPT]' }}
    {%- elif message.role == 'user' %}
        {{- '[INST]' }}
        {%- for block in message.content %}
            {{- block.text if block.type == 'text' else '[IMG]' }}
        {%- endfor %}
        {{- '[/INST]' }}
    {%- endif %}
{%- endfor %}
"""
"""A chat template of the form of Mistral Small 3's, without tools and answers."""


def qwen_tokenizer(*texts: str) -> Qwen2Tokenizer:
    """Return a byte-level tokenizer with merges from a few sentences; each word of `texts` is one
    token."""
    vocabulary, merges = byte_pairs(SPECIAL, ROLES, *texts)
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.add_tokens(["<|im_start|>"], special_tokens=True)
    tokenizer.chat_template = QWEN_TEMPLATE
    return tokenizer


def byte_pairs(special: Iterable[str], *texts: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return a byte-level vocabulary that begins with special tokens, and its merges from a few
    sentences; each word of `texts` is one token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Whole words first: a later merge takes none of their letters away.
    whole, some = (
        [
            f"{blank and 'Ġ'}{word}"
            for text in said
            for blank, word in re.findall(r"( ?)(\w+)", text)
        ]
        for said in (texts, SENTENCES)
    )
    merges = list(dict.fromkeys([*learn_merges(whole, 10_000), *learn_merges(some, 60)]))
    tokens = dict.fromkeys([*letters, *("".join(pair) for pair in merges)])
    return {token: number for number, token in enumerate([*special, *tokens])}, merges


def mistral_processor(*, padding_side: str = "left") -> PixtralProcessor:
    """Return a processor whose tokenizer is byte-level, begins texts with a start token and pads in
    front, as that of Mistral Small 3."""
    vocabulary, merges = byte_pairs(MISTRAL_SPECIAL, SYSTEM_MESSAGE)
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    inner.decoder = decoders.ByteLevel()  # pyright: ignore
    inner.post_processor = processors.TemplateProcessing(  # pyright: ignore
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side=padding_side,
        additional_special_tokens=list(MISTRAL_SPECIAL[3:]),
    )
    return PixtralProcessor(
        image_processor=PixtralImageProcessor(),
        tokenizer=tokenizer,
        chat_template=MISTRAL_TEMPLATE,
    )


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


def build_klein(*, is_distilled: bool = True, padding_side: str = "right", **options: Any) -> Any:
    """Return FLUX.2 klein: three states of Qwen3 side by side."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    tokenizer.padding_side = padding_side
    config = qwen3_config(tokenizer, hidden_size=8, intermediate_size=8, num_hidden_layers=28)
    text_encoder = Qwen3ForCausalLM(config)
    return diffusers.Flux2KleinPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        **flux2_parts(guidance_embeds=False, **options),
        is_distilled=is_distilled,
    )


def build_flux2(*, padding_side: str = "left", **options: Any) -> Any:
    """Return FLUX.2 dev: three states of Mistral 3 side by side, padding in front.

    Its attention is sharp: of 512 rows the last 50 are text, and padding in front hears none of it,
    so that a little noise would move an image by no more than rounding.
    """
    torch.manual_seed(0)
    processor = mistral_processor(padding_side=padding_side)
    config = Mistral3Config(
        text_config={
            "model_type": "mistral",
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 31,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "initializer_range": 0.3,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
        },
        initializer_range=0.3,
    )
    text_encoder, parts = Mistral3ForConditionalGeneration(config), flux2_parts(**options)
    with torch.no_grad():
        for name, weights in parts["transformer"].named_parameters():
            if name.endswith(("norm_k.weight", "norm_added_k.weight")):
                weights.mul_(4)
    return diffusers.Flux2Pipeline(
        tokenizer=processor,  # pyright: ignore
        text_encoder=text_encoder,
        **parts,
    )


def flux2_parts(**options: Any) -> dict[str, Any]:
    """Return the parts of FLUX.2 besides its language model: fused single blocks, and a VAE whose
    norm has statistics.

    64 channels, so that PyTorch's vectors end with a row: three rows of 16 differ in the last bit.
    """
    transformer = diffusers.Flux2Transformer2DModel(
        **{
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 4,
            "joint_attention_dim": 24,
            "axes_dims_rope": (4, 4, 4, 4),
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
    flow = diffusers.FlowMatchEulerDiscreteScheduler(**FLOW, use_dynamic_shifting=True)
    return {"vae": vae, "transformer": open_gates(transformer), "scheduler": flow}
