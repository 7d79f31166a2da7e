"""The published architectures at full size, on the meta device: what their configs say, as far as
it decides how many components and parameters there are.

The transformers' arguments are those that give the published numbers of parameters. SANA-Sprint's
and the 0.6B SANA's were read from no published config: SANA's are fitted to 0.59 billion, Sprint's
are those of SANA with what its pipeline needs. The layers and widths of the language models were
read from no published config either; ComfyUI's `comfy/text_encoders/llama.py` has the same.
"""

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from engine.model.families.known import FAMILIES
from engine.model.model import Skeleton, TextEncoder
from engine.model.parts import skeleton
from schemas.component import Kind

SD_1_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}
SD_2_UNET = SD_1_UNET | {
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
SDXL_UNET = SD_1_UNET | {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
    "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
}
# From diffusers' scripts/convert_if.py, and of the published 4.3 billion parameters.
IF_UNET = {
    "sample_size": 64,
    "in_channels": 3,
    "out_channels": 6,
    "block_out_channels": [704, 1408, 2112, 2816],
    "layers_per_block": 3,
    "cross_attention_dim": 2816,
    "attention_head_dim": 64,
    "cross_attention_norm": "group_norm",
    "encoder_hid_dim": 4096,
    "addition_embed_type": "text",
    "resnet_time_scale_shift": "scale_shift",
    "act_fn": "gelu",
    "down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
}
PIXART = {"sample_size": 128, "caption_channels": 4096}
SANA_SMALL = {
    "num_layers": 28,
    "num_attention_heads": 36,
    "attention_head_dim": 32,
    "num_cross_attention_heads": 16,
    "cross_attention_head_dim": 72,
    "cross_attention_dim": 1152,
}
SPRINT = {"guidance_embeds": True, "qk_norm": "rms_norm_across_heads"}
SD3: dict[str, Any] = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
SD35_MEDIUM = SD3 | {
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}
SD35_LARGE = SD3 | {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "qk_norm": "rms_norm",
}

CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
OPEN_CLIP_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
}
OPEN_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
GEMMA_2B: dict[str, Any] = {}
"""Gemma2Config's own values."""
QWEN3_4B: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
QWEN3_8B = QWEN3_4B | {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "tie_word_embeddings": False,
}
QWEN25_VL_7B: dict[str, Any] = {
    "text_config": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    "vision_config": {"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584},
}
MISTRAL_24B: dict[str, Any] = {"tie_word_embeddings": False}
"""Besides Mistral3Config's own values."""
KLEIN_4B: dict[str, Any] = {
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}
KLEIN_9B = KLEIN_4B | {
    "num_layers": 8,
    "num_single_layers": 24,
    "num_attention_heads": 32,
    "joint_attention_dim": 12288,
}
CLIPS_AND_T5 = {"text_encoder": CLIP_L, "text_encoder_2": OPEN_CLIP_G, "text_encoder_3": T5_XXL}
CLIP_AND_T5 = {"text_encoder": CLIP_L, "text_encoder_2": T5_XXL}


@dataclass(frozen=True, slots=True, kw_only=True)
class FullSize:
    """A published architecture, and what is known of it."""

    pipeline: str
    denoiser: dict[str, Any]
    texts: dict[str, dict[str, Any]]
    billions: float
    """Parameters of the denoiser."""
    kinds: dict[Kind, int]
    """The denoiser's live components of the paper's kinds."""
    dead: int = 0
    """The dead components of those kinds, also of text encoders."""
    text: int
    """Components of those kinds in all text encoders."""

    def open(self, name: str) -> Skeleton:
        """Return the networks, on the meta device."""
        family = FAMILIES[self.pipeline]
        return Skeleton(
            name=name,
            family=family,
            encoders=tuple(
                TextEncoder(name=part, module=skeleton(family.networks[part], config))
                for part, config in self.texts.items()
            ),
            denoiser=skeleton(family.networks[family.denoiser], self.denoiser),
        )


def _attended(layers: int) -> dict[Kind, int]:
    """Return the components of so many blocks of a transformer with cross-attention."""
    kinds = (Kind.SELF_ATTENTION, Kind.CROSS_ATTENTION, Kind.FEED_FORWARD)
    return dict.fromkeys(kinds, layers)


def _joint(layers: int, *, text: int, dual: int = 0) -> dict[Kind, int]:
    """Return the components of so many joint blocks; `text` of them have a live text side."""
    return {
        Kind.JOINT_ATTENTION: layers,
        Kind.FEED_FORWARD: layers,
        Kind.JOINT_ATTENTION_TEXT: text,
        Kind.FEED_FORWARD_TEXT: text,
        **({Kind.SELF_ATTENTION: dual} if dual else {}),
    }


_SD1 = FullSize(
    pipeline="StableDiffusionPipeline",
    denoiser=SD_1_UNET,
    texts={"text_encoder": CLIP_L},
    billions=0.860,
    kinds={
        Kind.SELF_ATTENTION: 16,
        Kind.CROSS_ATTENTION: 16,
        Kind.FEED_FORWARD: 16,
        Kind.RESNET: 22,
    },
    text=24,
)
_T5 = {"text_encoder": T5_XXL}
_GEMMA = {"text_encoder": GEMMA_2B}
_SD3 = FullSize(
    pipeline="StableDiffusion3Pipeline",
    denoiser=SD3,
    texts=CLIPS_AND_T5,
    billions=2.028,
    kinds=_joint(24, text=23),
    dead=1,
    text=24 + 64 + 48,
)
_FLUX = FullSize(
    pipeline="FluxPipeline",
    denoiser={"guidance_embeds": True},
    texts=CLIP_AND_T5,
    billions=11.901,
    kinds=_joint(19 + 38, text=19 + 37),
    dead=2,
    text=24 + 48,
)
_Z_IMAGE = FullSize(
    pipeline="ZImagePipeline",
    denoiser={},
    texts={"text_encoder": QWEN3_4B},
    billions=6.155,
    kinds={
        Kind.SELF_ATTENTION: 2,
        Kind.SELF_ATTENTION_TEXT: 2,
        Kind.JOINT_ATTENTION: 30,
        Kind.JOINT_ATTENTION_TEXT: 29,
        Kind.FEED_FORWARD: 2 + 30,
        Kind.FEED_FORWARD_TEXT: 2 + 29,
    },
    dead=2 + 2,
    text=72,
)
_KLEIN = FullSize(
    pipeline="Flux2KleinPipeline",
    denoiser=KLEIN_4B,
    texts={"text_encoder": QWEN3_4B},
    billions=3.876,
    kinds=_joint(5 + 20, text=5 + 19),
    dead=2 + 2 * 9,
    text=72,
)
FULL_SIZES = MappingProxyType(
    {
        "sd-1.4": _SD1,
        "sd-2.1": replace(
            _SD1,
            denoiser=SD_2_UNET,
            texts={"text_encoder": OPEN_CLIP_H},
            billions=0.866,
            text=46,
        ),
        "lcm": replace(
            _SD1,
            pipeline="LatentConsistencyModelPipeline",
            denoiser=SD_1_UNET | {"sample_size": 96, "time_cond_proj_dim": 256},
        ),
        "sdxl": FullSize(
            pipeline="StableDiffusionXLPipeline",
            denoiser=SDXL_UNET,
            texts={"text_encoder": CLIP_L, "text_encoder_2": OPEN_CLIP_G},
            billions=2.567,
            kinds={
                Kind.SELF_ATTENTION: 70,
                Kind.CROSS_ATTENTION: 70,
                Kind.FEED_FORWARD: 70,
                Kind.RESNET: 17,
            },
            dead=2,
            text=24 + 64,
        ),
        "if-stage-1": FullSize(
            pipeline="IFPipeline",
            denoiser=IF_UNET,
            texts=_T5,
            billions=4.305,
            kinds={Kind.JOINT_ATTENTION: 22, Kind.RESNET: 36},
            text=48,
        ),
        "pixart-alpha": FullSize(
            pipeline="PixArtAlphaPipeline",
            denoiser=PIXART,
            texts=_T5,
            billions=0.611,
            kinds=_attended(28),
            text=48,
        ),
        "pixart-sigma": FullSize(
            pipeline="PixArtSigmaPipeline",
            denoiser=PIXART | {"use_additional_conditions": False},
            texts=_T5,
            billions=0.611,
            kinds=_attended(28),
            text=48,
        ),
        "sana-0.6b": FullSize(
            pipeline="SanaPipeline",
            denoiser=SANA_SMALL,
            texts=_GEMMA,
            billions=0.592,
            kinds=_attended(28),
            text=52,
        ),
        "sana": FullSize(
            pipeline="SanaPipeline",
            denoiser={},
            texts=_GEMMA,
            billions=1.604,
            kinds=_attended(20),
            text=52,
        ),
        "sana-sprint": FullSize(
            pipeline="SanaSprintPipeline",
            denoiser=SPRINT,
            texts=_GEMMA,
            billions=1.610,
            kinds=_attended(20),
            text=52,
        ),
        "sd-3": _SD3,
        "sd-3.5-medium": replace(
            _SD3, denoiser=SD35_MEDIUM, billions=2.243, kinds=_joint(24, text=23, dual=13)
        ),
        "sd-3.5-large": replace(
            _SD3, denoiser=SD35_LARGE, billions=8.057, kinds=_joint(38, text=37)
        ),
        "flux-dev": _FLUX,
        "flux-schnell": replace(_FLUX, denoiser={}, billions=11.891),
        "z-image": _Z_IMAGE,
        "z-image-turbo": _Z_IMAGE,
        "qwen-image": FullSize(
            pipeline="QwenImagePipeline",
            denoiser={},
            texts={"text_encoder": QWEN25_VL_7B},
            billions=20.430,
            kinds=_joint(60, text=59),
            dead=2,
            text=56,
        ),
        "flux2-dev": FullSize(
            pipeline="Flux2Pipeline",
            denoiser={},
            texts={"text_encoder": MISTRAL_24B},
            billions=32.223,
            kinds=_joint(8 + 48, text=8 + 47),
            dead=2 + 2 * 10,
            text=80,
        ),
        "flux2-klein-4b": _KLEIN,
        "flux2-klein-9b": replace(
            _KLEIN,
            denoiser=KLEIN_9B,
            texts={"text_encoder": QWEN3_8B},
            billions=9.079,
            kinds=_joint(8 + 24, text=8 + 23),
        ),
    }
)
"""By the short names of `engine.model.registry`; `sana-0.6b` has none."""
