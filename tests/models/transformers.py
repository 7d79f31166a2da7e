"""Tiny diffusion transformers, like their published configs but for the widths."""

from typing import Any

import diffusers
import torch
from diffusers import AutoencoderDC, AutoencoderKL
from torch import nn
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    T5Config,
    T5EncoderModel,
)

from tests.models.families import louder, open_clip_tokenizer, t5_tokenizer, text_config
from tests.models.tiny import build_tokenizer
from tests.models.vocabulary import WORDS, learn_merges

T5_WIDTH = 24
FLOW: dict[str, Any] = {"num_train_timesteps": 1000, "shift": 3.0}


def build_pixart(*, sigma: bool, **options: Any) -> Any:
    """Return PixArt: a mask, a learned variance that nothing reads."""
    torch.manual_seed(0)
    transformer = diffusers.PixArtTransformer2DModel(
        **{
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 3,
            "cross_attention_dim": 16,
            "sample_size": 8,
            "caption_channels": T5_WIDTH,
            **options,
        }
    )
    kind = diffusers.PixArtSigmaPipeline if sigma else diffusers.PixArtAlphaPipeline
    return kind(
        tokenizer=t5_tokenizer(),
        text_encoder=_t5(T5_WIDTH),
        vae=tiny_vae(),
        transformer=open_gates(transformer),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def build_sana(*, sprint: bool) -> Any:
    """Return SANA or SANA-Sprint: Gemma under an instruction, linear attention, convolutions."""
    torch.manual_seed(0)
    tokenizer = _gemma_tokenizer()
    text_encoder = Gemma2Model(
        Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
        )
    )
    transformer = diffusers.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=8,
        guidance_embeds=sprint,
        qk_norm="rms_norm_across_heads" if sprint else None,
    )
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    scheduler = (
        diffusers.SCMScheduler() if sprint else diffusers.DPMSolverMultistepScheduler(**flow)
    )
    kind = diffusers.SanaSprintPipeline if sprint else diffusers.SanaPipeline
    return kind(
        tokenizer=tokenizer,
        text_encoder=louder(text_encoder),
        vae=_deep_vae(),
        transformer=open_gates(transformer),
        scheduler=scheduler,  # pyright: ignore
    )


def _gemma_tokenizer() -> GemmaTokenizer:
    """Return a Gemma tokenizer whose merges come from a few sentences; a start token, no end."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = [*special, *"▁abcdefghijklmnopqrstuvwxyz,."]
    pairs = learn_merges(([*f"▁{word}"] for word in WORDS), 160)
    pieces = dict.fromkeys([*letters, *("".join(pair) for pair in pairs)])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return GemmaTokenizer(vocab=vocabulary, merges=pairs)  # pyright: ignore


def _deep_vae() -> AutoencoderDC:
    # Its linear attention divides by a sum that random weights bring near zero: after seed 0, a
    # rounding of a skipped block's latents moves an image by 0.0016.
    torch.manual_seed(1)
    blocks = ("ResBlock", "EfficientViTBlock")
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    return vae


def build_sd3(*, has_t5: bool = True, **options: Any) -> Any:
    """Return SD3.5 medium: two CLIPs, T5, a second attention of the image in the first block."""
    torch.manual_seed(0)
    tokenizers = [build_tokenizer(), open_clip_tokenizer()]
    first = CLIPTextModelWithProjection(
        text_config(tokenizers[0], width=16, layers=2, projection_dim=20)
    )
    second = CLIPTextModelWithProjection(
        text_config(tokenizers[1], width=20, layers=3, hidden_act="gelu", projection_dim=12)
    )
    transformer = diffusers.SD3Transformer2DModel(
        **{
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 3,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": 40,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 32,
            "pos_embed_max_size": 12,
            "dual_attention_layers": (0,),
            "qk_norm": "rms_norm",
            **options,
        }
    )
    return diffusers.StableDiffusion3Pipeline(
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        tokenizer_3=t5_tokenizer() if has_t5 else None,  # pyright: ignore
        text_encoder=louder(first),
        text_encoder_2=louder(second),
        text_encoder_3=_t5(40) if has_t5 else None,  # pyright: ignore
        vae=tiny_vae(shift_factor=0.06),
        transformer=open_gates(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLOW),
    )


def build_flux(*, guidance_embeds: bool) -> Any:
    """Return FLUX.1 dev or schnell: CLIP's pooled embedding, T5's rows, packed latents."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=16,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(2, 2, 4),
    )
    shift = {"use_dynamic_shifting": True} if guidance_embeds else {"shift": 1.0}
    return diffusers.FluxPipeline(
        tokenizer=tokenizer,
        tokenizer_2=t5_tokenizer(),  # pyright: ignore
        text_encoder=louder(CLIPTextModel(text_config(tokenizer, width=16, layers=2))),
        text_encoder_2=_t5(T5_WIDTH),
        vae=tiny_vae(shift_factor=0.11),
        transformer=open_gates(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**{**FLOW, **shift}),
    )


def _t5(width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(t5_tokenizer()),
        d_model=width,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return louder(T5EncoderModel(config))


def tiny_vae(**options: Any) -> AutoencoderKL:
    """Return a VAE of 4 channels, and 2 pixels a cell."""
    vae = AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=16,
        **options,
    )
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(3)
    return vae


def open_gates(transformer: nn.Module) -> Any:
    """Return the transformer, with weights that carry the caption to the image made larger."""
    loud = ("att", "feed", "ff", "embedder", "projection", "proj_out", "norm")
    with torch.no_grad():
        for name, weights in transformer.named_parameters():
            if weights.ndim == 2 and any(part in name for part in loud):
                weights.mul_(2)
    return transformer
