"""The shipped folder: a complete diffusers pipeline, the scorer beside it, the word lists."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from open_clip.model import CLIP
from transformers import CLIPTextModel, CLIPTokenizer

from engine.reference.data import grid
from engine.reference.scorer import export_scorer
from engine.reference.unet import build_scheduler
from engine.reference.vocabulary import (
    COLOURS,
    GUIDANCE,
    STEPS,
    STYLES,
    VIEWPOINTS,
    Combo,
    caption,
    write_vocabulary,
)

FOLDER = Path(__file__).parent / "emoji-sd"
SHOWN = ["cat", "penguin", "butterfly", "hot dog", "palm tree", "castle", "fire engine", "bus"]
"""Objects of the sample sheet."""


def build_pipeline(
    *,
    vae: AutoencoderKL,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    scale: float,
) -> StableDiffusionPipeline:
    """The parts as one pipeline; `scale` becomes the VAE's scaling factor."""
    vae.register_to_config(scaling_factor=scale)
    unet.set_attn_processor(AttnProcessor2_0())
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export_pipeline(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write the pipeline; VAE and UNet stored as float16, which diffusers loads as float32."""
    # transformers would load a float16 text encoder as float16, so that stays as it is.
    parts = (pipeline.vae, pipeline.unet)
    for part in parts:
        part.to(torch.float16)
    pipeline.save_pretrained(folder)
    for part in parts:
        part.to(torch.float32)


def export_all(pipeline: StableDiffusionPipeline, scorer: CLIP, *, folder: Path = FOLDER) -> None:
    """Write everything but the model card."""
    folder.mkdir(parents=True, exist_ok=True)
    write_vocabulary(folder / "vocabulary.json")
    export_pipeline(pipeline, folder)
    (folder / "scorer").mkdir(exist_ok=True)
    export_scorer(scorer, folder / "scorer")


def write_samples(pipeline: StableDiffusionPipeline, path: Path) -> None:
    """A sheet of 8 objects in all styles, natural above tinted (some upside down), enlarged."""
    colours = [c for c in COLOURS if c != "natural"]
    rows = [[Combo(obj, style) for obj in SHOWN] for style in STYLES]
    rows += [
        [
            Combo(obj, style, colours[(i + j) % 6], list(VIEWPOINTS)[j % 2])
            for j, obj in enumerate(SHOWN)
        ]
        for i, style in enumerate(STYLES)
    ]
    texts = [caption(c) for row in rows for c in row]
    seeds = [torch.Generator().manual_seed(i) for i in range(len(texts))]
    arguments = {"guidance_scale": GUIDANCE, "num_inference_steps": STEPS}
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(texts, generator=seeds, output_type="pt", **arguments).images
    pixels_NCHW = (images * 255).round().to(torch.uint8)
    grid(pixels_NCHW, columns=len(SHOWN), zoom=3).save(path)


def megabytes(folder: Path) -> float:
    """Size of all weights under the folder, in MB of 10^6 bytes."""
    return sum(f.stat().st_size for f in folder.rglob("*.safetensors")) / 1e6
