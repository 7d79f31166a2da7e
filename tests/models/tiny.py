"""Tiny real models with seeded random weights, saved as folders that dqf opens."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from open_clip.model import CLIP
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.models.vocabulary import WORDS, learn_merges

LENGTH = 24


def build_tokenizer(*, merges: int = 60) -> CLIPTokenizer:
    """Return a CLIP tokenizer whose byte-pair merges come from a few sentences.

    Words that are not in them, "hippopotamus" say, become several tokens.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    alphabet = letters + [letter + "</w>" for letter in letters]
    pairs = learn_merges(([*word[:-1], f"{word[-1]}</w>"] for word in WORDS), merges)
    tokens = [*alphabet, *dict.fromkeys("".join(pair) for pair in pairs)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=LENGTH)


def build_pipeline() -> StableDiffusionPipeline:
    """Return a Stable Diffusion pipeline of 8 x 8 latents and 16 x 16 pixels."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=16,
    )
    with torch.no_grad():
        for name, weights in text_encoder.named_parameters():
            if weights.ndim == 2 and "embedding" not in name:
                weights.mul_(4)
        for name, weights in unet.named_parameters():
            if "attn2.to_" in name and weights.ndim == 2:
                weights.mul_(3)
        unet.conv_out.weight.mul_(2)
        vae.decoder.conv_out.weight.mul_(3)
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,  # pyright: ignore
        feature_extractor=None,  # pyright: ignore
        requires_safety_checker=False,
    )


def save_scorer(folder: Path) -> None:
    """Write an open_clip folder: a small vision transformer over 16 x 16 pixels and a text one."""
    torch.manual_seed(1)
    tokenizer = build_tokenizer(merges=100)
    tokenizer.save_pretrained(str(folder))
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 16,
                       "patch_size": 4},
        "text_cfg": {"context_length": LENGTH, "vocab_size": len(tokenizer), "width": 32,
                     "heads": 2, "layers": 2, "hf_tokenizer_name": "this folder",
                     "pool_type": "argmax"},
    }  # fmt: skip
    model = CLIP(**config)  # pyright: ignore
    with torch.no_grad():
        for module in model.visual.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.mul_(2)
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    document = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
