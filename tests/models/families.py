"""Tiny pipelines of the other families, like their published configs but for the widths."""

from typing import Any

import diffusers
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from tests.models.tiny import LENGTH, build_pipeline, build_tokenizer
from tests.models.vocabulary import scored_pieces

UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": (2, 4),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "use_linear_projection": True,
}
NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def build_sd2() -> Any:
    """Return Stable Diffusion 2: padding with "!", which has id 0, and v-prediction."""
    base = build_pipeline()
    tokenizer = open_clip_tokenizer()
    text_encoder = CLIPTextModel(text_config(tokenizer, width=40, layers=3, hidden_act="gelu"))
    unet = UNet2DConditionModel(**UNET, cross_attention_dim=40)
    scheduler = diffusers.DDIMScheduler(
        **NOISE,
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return diffusers.StableDiffusionPipeline(
        vae=base.vae,
        text_encoder=louder(text_encoder),
        tokenizer=tokenizer,
        unet=louder(unet),
        scheduler=scheduler,
        safety_checker=None,  # pyright: ignore
        feature_extractor=None,  # pyright: ignore
        requires_safety_checker=False,
    )


def build_lcm() -> Any:
    """Return a latent consistency model: its UNet embeds the guidance scale."""
    base = build_pipeline()
    unet = UNet2DConditionModel(**UNET, cross_attention_dim=32, time_cond_proj_dim=16)
    return diffusers.LatentConsistencyModelPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=louder(unet),
        scheduler=diffusers.LCMScheduler(**NOISE),
        safety_checker=None,  # pyright: ignore
        feature_extractor=None,  # pyright: ignore
        requires_safety_checker=False,
    )


def build_sdxl() -> Any:
    """Return Stable Diffusion XL: two text encoders, of which the second has a projection."""
    base = build_pipeline()
    tokenizers = [build_tokenizer(), open_clip_tokenizer()]
    first = CLIPTextModel(text_config(tokenizers[0], width=32, layers=2))
    second = CLIPTextModelWithProjection(
        text_config(tokenizers[1], width=48, layers=3, hidden_act="gelu", projection_dim=40)
    )
    unet = UNet2DConditionModel(
        **UNET
        | {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2),
            "cross_attention_dim": 32 + 48,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 40 + 6 * 8,
        }
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=base.vae,
        text_encoder=louder(first),
        text_encoder_2=louder(second),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=louder(unet),
        scheduler=diffusers.EulerDiscreteScheduler(**NOISE, steps_offset=1),
        add_watermarker=False,
    )


def build_if() -> Any:
    """Return the first stage of DeepFloyd IF: T5, pixels, a learned variance."""
    torch.manual_seed(0)
    tokenizer = t5_tokenizer()
    text_encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=24,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=3,
            feed_forward_proj="gated-gelu",
        )
    )
    unet = UNet2DConditionModel(
        **UNET
        | {
            "sample_size": 16,
            "in_channels": 3,
            "out_channels": 6,
            "attention_head_dim": 8,
            "use_linear_projection": False,
            "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            "cross_attention_dim": 32,
            "cross_attention_norm": "group_norm",
            "encoder_hid_dim": 24,
            "addition_embed_type": "text",
            "addition_embed_type_num_heads": 4,
            "resnet_time_scale_shift": "scale_shift",
            "act_fn": "gelu",
        }
    )
    scheduler = diffusers.DDPMScheduler(
        variance_type="learned_range",
        beta_schedule="squaredcos_cap_v2",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.5,
    )
    return diffusers.IFPipeline(
        tokenizer=tokenizer,  # pyright: ignore
        text_encoder=louder(text_encoder),
        unet=louder(unet),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )


def open_clip_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer of Stable Diffusion 2 and of SDXL's second encoder: "!" pads."""
    tokenizer = build_tokenizer()
    tokenizer.pad_token = "!"
    return tokenizer


def t5_tokenizer() -> T5Tokenizer:
    """Return a T5 tokenizer whose pieces come from a few sentences; it has no start token."""
    special = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")]
    return T5Tokenizer(vocab=[*special, *scored_pieces(97)], extra_ids=0)


def text_config(
    tokenizer: CLIPTokenizer, *, width: int, layers: int, **options: Any
) -> CLIPTextConfig:
    """Return the config of a CLIP text encoder; its end-of-text id is 2, as on the hub."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=0,
        eos_token_id=2,
        **options,
    )


def louder(network: nn.Module) -> Any:
    """Return the network, with weights that carry the caption to the image made larger."""
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if weights.ndim == 2 and ("layer" in name or "block" in name):
                text = any(part in name for part in ("attn2.to_", "add_k_proj", "add_v_proj"))
                weights.mul_(3 if text or isinstance(network, CLIPTextModel) else 1)
        if isinstance(network, UNet2DConditionModel):
            network.conv_out.weight.mul_(2)
    return network


BUILDERS = {"sd2": build_sd2, "lcm": build_lcm, "sdxl": build_sdxl, "if": build_if}
