"""The images of diffusers' own pipelines, for the noise that dqf draws."""

import functools
import json
from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
import torch

from engine.model.schedulers import scheduler_named
from engine.model.seeds import derived_seed
from schemas.numerics import Numerics


def open_pipeline(folder: Path) -> Any:
    """Return the pipeline of a folder, as diffusers opens it."""
    index = json.loads((folder / "model_index.json").read_text())
    absent = {part: None for part, entry in index.items() if entry == [None, None]}
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        folder, low_cpu_mem_usage=False, **absent
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pipeline_image(
    pipeline: Any, caption: str, *, seed: int, numerics: Numerics, **options: Any
) -> torch.Tensor:
    """Return the pipeline's image_1CHW of a caption in [0, 1]; `options` are its own.

    Its generator first draws the latent of that seed, then every step's noise as dqf does.
    """
    if numerics.scheduler is not None:
        pipeline.scheduler = scheduler_named(numerics.scheduler, pipeline.scheduler.config)
    generator = torch.Generator().manual_seed(seed)
    own, step = pipeline.scheduler.step, iter(range(2 * numerics.steps))
    # Some pipelines pass none, and their schedulers then draw from PyTorch's own generator.
    drawing = {"generator": generator} if "generator" in signature(own).parameters else {}

    @functools.wraps(own)
    def reseeded(*args: Any, **kwargs: Any) -> Any:
        generator.manual_seed(derived_seed("scheduler noise", seed, next(step)))
        return own(*args, **{**kwargs, **drawing})

    pipeline.scheduler.step = reseeded
    given = {"negative_prompt": numerics.negative_prompt, "height": numerics.height}
    given |= {"width": numerics.width, "guidance_scale": numerics.guidance}
    image_1HWC = pipeline(
        prompt=caption,
        num_inference_steps=numerics.steps,
        generator=generator,
        output_type="np",
        **({name: value for name, value in given.items() if value} | options),
    ).images
    return torch.as_tensor(image_1HWC).permute(0, 3, 1, 2)
