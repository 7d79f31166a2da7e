"""The shipped folders: two complete diffusers pipelines, the scorer, the word lists."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusion3Pipeline, StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor2_0
from open_clip.model import CLIP
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from engine.reference import dit, loop, unet
from engine.reference.phases import Phase, last_checkpoint
from engine.reference.scenes import grid
from engine.reference.scorer import export_scorer
from engine.reference.vocabulary import GUIDANCE, STEPS, Scene, caption, write_vocabulary

FOLDER = Path(__file__).parent
PIPELINES = {"emoji-sd": StableDiffusionPipeline, "emoji-dit": StableDiffusion3Pipeline}
EXTRA_ARGUMENTS: dict[str, dict[str, Any]] = {
    "emoji-sd": {},
    "emoji-dit": {"max_sequence_length": dit.ZERO_ROWS},
}
"""Arguments of every call of a model's pipeline besides prompt, guidance and steps."""
MISSING_PARTS: dict[str, dict[str, Any]] = {
    "emoji-sd": {},
    "emoji-dit": {"text_encoder_3": None, "tokenizer_3": None},
}
"""Arguments that `from_pretrained` needs: diffusers 0.42 does not read from the folder's index that
a part is absent, and asks for SD3's third text encoder without them."""
SHOWN = ("cat", "penguin", "butterfly", "hot dog", "palm tree", "castle", "fire engine", "bus")
"""Objects of the sample sheet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of both pipelines except their denoisers."""

    vae: AutoencoderKL
    scale: float
    """The VAE's scaling factor."""
    encoders: tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection]
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer]


def averaged(work: Path, phases: tuple[Phase, ...], model: torch.nn.Module) -> torch.nn.Module:
    """Return the model with the averaged weights of its last phase begun, finished or not.

    FileNotFoundError: no phase has begun.
    """
    path = last_checkpoint(work, phases)
    if path is None:
        raise FileNotFoundError(f"{work} has no checkpoint of {phases[0].name}")
    model.load_state_dict(loop.load(path)["average"])
    return model.eval()


def build_sd(parts: Parts, work: Path) -> StableDiffusionPipeline:
    """Return emoji-sd from the checkpoints in `work`."""
    denoiser = averaged(work, unet.PHASES, unet.build_unet())
    denoiser.set_attn_processor(AttnProcessor2_0())
    return StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.encoders[0].text_model,
        tokenizer=parts.tokenizers[0],
        unet=denoiser,
        scheduler=unet.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def build_dit(parts: Parts, work: Path) -> StableDiffusion3Pipeline:
    """Return emoji-dit from the checkpoints in `work`."""
    return StableDiffusion3Pipeline(
        vae=parts.vae,
        text_encoder=parts.encoders[0],
        tokenizer=parts.tokenizers[0],
        text_encoder_2=parts.encoders[1],
        tokenizer_2=parts.tokenizers[1],
        text_encoder_3=None,
        tokenizer_3=None,
        transformer=averaged(work, dit.PHASES, dit.build_dit()),
        scheduler=dit.build_scheduler(),
    )


def export_pipeline(pipeline: Any, folder: Path) -> None:
    """Write a pipeline; VAE and denoiser stored as float16, which diffusers loads as float32."""
    # transformers would load a float16 text encoder as float16, so those stay as they are.
    halved = [pipeline.components[name] for name in ("vae", "unet", "transformer")
              if name in pipeline.components]  # fmt: skip
    for part in halved:
        part.to(torch.float16)
    pipeline.save_pretrained(folder)
    for part in halved:
        part.to(torch.float32)


def export_all(parts: Parts, scorer: CLIP, *, work: Path, folder: Path = FOLDER) -> list[str]:
    """Write the folders without model cards and sample sheets; return the names of the models.

    A model is left out while `work` has no checkpoint of its denoiser; the scorer is always
    written.
    """
    parts.vae.register_to_config(scaling_factor=parts.scale)
    builders = {"emoji-sd": (unet.PHASES, build_sd), "emoji-dit": (dit.PHASES, build_dit)}
    names = [name for name, (phases, _) in builders.items() if last_checkpoint(work, phases)]
    for name in names:
        for old in ("unet", "transformer", "text_encoder", "text_encoder_2", "vae"):
            shutil.rmtree(folder / name / old, ignore_errors=True)
        export_pipeline(builders[name][1](parts, work), folder / name)
        write_vocabulary(folder / name / "vocabulary.json", guidance=GUIDANCE[name])
    export_scorer(scorer, folder / "emoji-sd" / "scorer")
    return names


def open_pipeline(folder: Path, name: str) -> Any:
    """Return a shipped pipeline as any diffusers user opens it."""
    pipeline = PIPELINES[name].from_pretrained(folder / name, **MISSING_PARTS[name])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample_scenes() -> list[list[Scene]]:
    """Return the rows of the sample sheet: each style natural, one tinted, counted and in pairs."""
    hues = ("red", "orange", "yellow", "green", "blue", "purple")
    turned = ("upright", "upside down")
    rows = [
        [Scene(name, style) for name in SHOWN] for style in ("noto", "sticker", "neon", "stencil")
    ]
    rows.append([
        Scene(name, "noto", hues[i % 6], "upright" if name == "butterfly" else turned[i % 2])
        for i, name in enumerate(SHOWN)
    ])  # fmt: skip
    rows.append([
        Scene(name, "neon", count=("two", "three")[i % 2]) for i, name in enumerate(SHOWN)
    ])  # fmt: skip
    rows.append([
        Scene(name, "sticker", hues[i % 6], second=SHOWN[i - 1], second_color=hues[(i + 3) % 6])
        for i, name in enumerate(SHOWN)
    ])  # fmt: skip
    return rows


def write_samples(folder: Path, name: str) -> None:
    """Write a shipped model's sample sheet, enlarged twice; image i starts from seed i's noise."""
    texts = [caption(scene) for row in sample_scenes() for scene in row]
    seeds = [torch.Generator().manual_seed(i) for i in range(len(texts))]
    arguments = {"guidance_scale": GUIDANCE[name], "num_inference_steps": STEPS}
    arguments |= EXTRA_ARGUMENTS[name]
    pipeline = open_pipeline(folder, name)
    images = pipeline(texts, generator=seeds, output_type="pt", **arguments).images
    pixel_NCHW = (images * 255).round().to(torch.uint8)
    grid(pixel_NCHW, columns=len(SHOWN), zoom=2).save(folder / name / "samples.png")


def megabytes(folder: Path) -> float:
    """Return the size of all weights under the folder, in MB of 10^6 bytes."""
    return sum(f.stat().st_size for f in folder.rglob("*.safetensors")) / 1e6
