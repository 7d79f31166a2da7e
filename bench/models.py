"""The models of the measurements: emoji-sd, SD 1's full-width networks without training, and two
transformers of reduced width.

`sd1-random` has the UNet (320 to 1280 channels) and the text encoder (CLIP ViT-L) of Stable
Diffusion 1 with seeded random weights, so that it needs no download; its images mean nothing. Its
latent is 8 x 8 unless `--latent 64`, SD 1's own, is given: a row of that takes two CPU cores over
ten seconds, and a trace takes hours. Its VAE is tiny, so that mostly the UNet is measured.

`pixart-random` (cross-attention) and `sd3-random` (joint attention) are 128 channels wide, have
eight and six blocks and a latent of 16 x 16: a row takes some milliseconds.
"""

import argparse
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from engine.model.calibration import calibrate
from engine.model.components import list_components
from engine.model.defaults import default_sampling
from engine.model.device import process_device
from engine.model.families.known import FAMILIES
from engine.model.model import Diffusion
from engine.model.opening import from_pipeline, open_model, open_tokenizer
from jobs.input.probes import probe_set
from schemas.component import PAPER_KINDS, Part
from schemas.numerics import Numerics
from schemas.unit import Unit
from schemas.window import expand_windows
from tests.models.transformers import build_pixart, build_sd3

SD1_RANDOM = "sd1-random"
WIDTH: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 64, "sample_size": 16}
REDUCED = {
    "pixart-random": lambda: build_pixart(
        sigma=True, **WIDTH, cross_attention_dim=128, num_layers=8
    ),
    "sd3-random": lambda: build_sd3(
        has_t5=False, **WIDTH, caption_projection_dim=128, num_layers=6, dual_attention_layers=()
    ),
}
"""Transformers of reduced width, by name."""
NAMES = ("emoji-sd", SD1_RANDOM, *REDUCED)
SCORER = "builtin:emoji-sd"
"""The scorer of both models' images; for the random model its numbers mean nothing."""
FULL_WIDTH_STEPS = 2
FULL_WIDTH_LATENT = 8
REDUCED_STEPS, REDUCED_GUIDANCE = 20, 4.5


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the trace."""
    parser.add_argument("--model", default="emoji-sd", choices=NAMES)
    parser.add_argument("--steps", type=int, help="2 on sd1-random, 20 on others")
    parser.add_argument(
        "--components", type=int, help="number, spread over the network; default all"
    )
    parser.add_argument("--latent", type=int, default=FULL_WIDTH_LATENT, help="of sd1-random")
    parser.add_argument("--threads", type=int, help="of torch; its own default if not given")


def add_rows(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses the batch."""
    parser.add_argument("--rows", type=int, help="batch of the engine; measured, as for a run")


def choose_rows(options: argparse.Namespace, model: Diffusion, numerics: Numerics) -> None:
    """Measure the batch that a run would take, unless one is given."""
    options.rows = options.rows or calibrate(model, numerics).rows


def open_chosen(options: argparse.Namespace) -> tuple[Diffusion, Numerics]:
    """Return the model that `add_options` chose and the numerics to trace it with."""
    if options.threads:
        torch.set_num_threads(options.threads)
    model = open_named(options.model, latent=options.latent)
    return model, numerics_of(options.model, options.steps)


def open_named(name: str, *, dtype: str = "float32", latent: int = FULL_WIDTH_LATENT) -> Diffusion:
    """Return a model by its name here."""
    if name not in REDUCED:
        return build_sd1(dtype, latent) if name == SD1_RANDOM else open_model(name, dtype=dtype)
    pipeline = REDUCED[name]()
    family = FAMILIES[type(pipeline).__name__]
    return from_pipeline(
        pipeline, name=name, family=family, device=process_device(), dtype=getattr(torch, dtype)
    )


def numerics_of(name: str, steps: int | None = None) -> Numerics:
    """Return the model's own guidance, and its steps unless some are given."""
    if name in REDUCED:
        return Numerics(steps=steps or REDUCED_STEPS, guidance=REDUCED_GUIDANCE)
    own = default_sampling(name)
    default = FULL_WIDTH_STEPS if name == SD1_RANDOM else own.steps
    return Numerics(steps=steps or default, guidance=own.guidance)


def component_names(model: Diffusion, part: Part, count: int | None) -> tuple[str, ...]:
    """Return the names of `count` components spread over a part; with None, all of the paper's."""
    names = [c.name for c in list_components(model, PAPER_KINDS) if c.part is part]
    count = min(count or len(names), len(names))
    return tuple(names[n * len(names) // count] for n in range(count))


def make_unit(
    model: Diffusion,
    numerics: Numerics,
    *,
    part: Part = Part.DENOISER,
    window: str = "all",
    components: int | None = None,
    caption: int = 0,
) -> Unit:
    """Return the unit of one caption of emoji-sd's probe set."""
    return Unit(
        caption=probe_set("emoji-sd")[caption],
        seed=0,
        draw=0,
        part=part,
        components=component_names(model, part, components),
        windows=expand_windows([window], numerics.steps),
    )


def build_sd1(dtype: str = "float32", latent: int = FULL_WIDTH_LATENT) -> Diffusion:
    """Return the full-width model with random weights, for latents of that height and width."""
    torch.manual_seed(0)
    tokenizer = open_tokenizer("emoji-sd")
    tokenizer.model_max_length = 77
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    pipeline = StableDiffusionPipeline(
        vae=_tiny_vae(),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=_full_unet(latent),
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return from_pipeline(
        pipeline,
        name=SD1_RANDOM,
        family=FAMILIES["StableDiffusionPipeline"],
        device=process_device(),
        dtype=getattr(torch, dtype),
    )


def _full_unet(latent: int) -> UNet2DConditionModel:
    """Return SD 1's UNet, with cross-attention strong enough for the text to have an effect."""
    unet = UNet2DConditionModel(
        sample_size=latent,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        cross_attention_dim=768,
        attention_head_dim=8,
    )
    with torch.no_grad():
        for name, weights in unet.named_parameters():
            if "attn2.to_" in name and weights.ndim == 2:
                weights.mul_(3)
    return unet


def _tiny_vae() -> AutoencoderKL:
    """Return a decoder of one level: images have the latent's size."""
    return AutoencoderKL(
        block_out_channels=(16,),
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
