"""The sampler: text conditionings, denoising with classifier-free guidance, decoding.

Shapes: R rows, L token positions, D text width, C channels, h x w latent, H x W pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from engine.model.conditioning import Conditioning, joined
from engine.model.finite import refuse_not_finite
from engine.model.guidance import is_guided
from engine.model.model import Diffusion
from engine.model.opening import new_scheduler
from engine.model.schedulers import Rows, evaluated, initial_sigma
from schemas.numerics import Numerics

DECODED_TOGETHER = 8
"""Images that the VAE decodes together: its activations are larger than the denoiser's."""


def encode(model: Diffusion, captions: Sequence[str]) -> Conditioning:
    """Return the conditioning of captions, one row each; NotFinite if a row is not finite."""
    cond = model.family.encode(model, model.token_ids(captions))
    check_conditioning(model, cond, runs=[f"caption {caption!r}" for caption in captions])
    return cond


def check_conditioning(model: Diffusion, cond: Conditioning, *, runs: Sequence[str]) -> None:
    """Raise NotFinite if the text encoders return a row that is not finite."""
    dtype = next(model.text_encoder.parameters()).dtype
    for rows in (cond.text_RLD, cond.pooled_RP):
        if rows is not None:
            refuse_not_finite(rows, runs=runs, network="the text encoder", dtype=dtype)


def initial_latent(model: Diffusion, seed: int, numerics: Numerics) -> torch.Tensor:
    """Return z_T, 1 x C x h x w float32, from a CPU generator of that seed."""
    shape = model.latent_shape(height=numerics.height, width=numerics.width)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, *shape), generator=generator).to(model.device)


def starting_rows(model: Diffusion, seeds: Sequence[int], numerics: Numerics) -> Rows:
    """Return the rows before the first step, row r with the latent of seeds[r]."""
    scheduler = new_scheduler(model, numerics)
    x_RChw = torch.cat([initial_latent(model, seed, numerics) for seed in seeds])
    x_RChw = x_RChw * initial_sigma(scheduler)
    return Rows(x_RChw=x_RChw, scheduler=scheduler, seeds=tuple(seeds))


def unconditional(model: Diffusion, numerics: Numerics) -> Conditioning | None:
    """Return the negative prompt's one row; None where the denoiser does not run on it."""
    if not is_guided(model, numerics):
        return None
    return model.family.unconditional(model, numerics.negative_prompt)


def denoiser_output(
    model: Diffusion,
    x: torch.Tensor,
    t: torch.Tensor,
    cond: Conditioning,
    numerics: Numerics,
) -> torch.Tensor:
    """Return the denoiser's prediction, float32; row r of `x` reads row r of `cond`."""
    factor = model.family.vae_factor(model.vae)
    pixels = (x.shape[-2] * factor, x.shape[-1] * factor)
    guidance = numerics.guidance
    return model.family.predict(model, x, t, cond, guidance=guidance, pixels=pixels).float()


def denoise(
    model: Diffusion,
    cond: Conditioning,
    *,
    uncond: Conditioning | None,
    seeds: Sequence[int],
    numerics: Numerics,
) -> torch.Tensor:
    """Return final latents_RChw; the rows advance together, row r from the latent of seeds[r].

    The denoiser's batch is [uncond rows, cond rows], or the cond rows alone where it is not guided.
    """
    rows = starting_rows(model, seeds, numerics)
    both = cond if uncond is None else joined([uncond.take([0] * len(cond)), cond])
    for step, t in enumerate(evaluated(rows.scheduler)):
        x = rows.model_input(step).repeat(len(both) // len(rows), 1, 1, 1)
        output = denoiser_output(model, x, t, both, numerics)
        if len(both) > len(rows):
            channels = rows.x_RChw.shape[1]
            output = model.family.guide(
                *output.chunk(2), guidance=numerics.guidance, channels=channels
            )
        rows = rows.stepped(rows.read(output), step)
    return rows.x_RChw


def decode(
    model: Diffusion, latents_RChw: torch.Tensor, *, runs: Sequence[str] | None = None
) -> torch.Tensor:
    """Return images_RCHW in [0, 1], float32 on the CPU; `runs` names the run of each.

    NotFinite: a latent or an image is not finite.
    """
    runs = runs or [f"image {row + 1}" for row in range(len(latents_RChw))]
    refuse_not_finite(latents_RChw, runs=runs, network="the denoiser", dtype=model.dtype)
    parts = [model.family.decode(model, x).cpu() for x in latents_RChw.split(DECODED_TOGETHER)]
    images_RCHW = torch.cat(parts)
    refuse_not_finite(images_RCHW, runs=runs, network="the VAE", dtype=torch.float32)
    return images_RCHW


def sample(
    model: Diffusion,
    cond: Conditioning,
    *,
    seeds: Sequence[int],
    numerics: Numerics,
    rows: int,
) -> torch.Tensor:
    """Return final latents_RChw of conditionings, `rows` at a time."""
    uncond = unconditional(model, numerics)
    parts = [
        denoise(
            model,
            cond.take(range(start, min(start + rows, len(cond)))),
            uncond=uncond,
            seeds=seeds[start : start + rows],
            numerics=numerics,
        )
        for start in range(0, len(cond), rows)
    ]
    return torch.cat(parts)


@torch.inference_mode()
def generate(
    model: Diffusion,
    captions: Sequence[str],
    *,
    seeds: Sequence[int],
    numerics: Numerics,
    rows: int = 16,
) -> torch.Tensor:
    """Return one image per caption, images_RCHW in [0, 1]; caption r starts from seeds[r]."""
    if len(captions) != len(seeds):
        raise ValueError(f"{len(captions)} captions but {len(seeds)} seeds")
    cond = encode(model, captions)
    latents_RChw = sample(model, cond, seeds=seeds, numerics=numerics, rows=rows)
    return decode(model, latents_RChw, runs=[f"caption {caption!r}" for caption in captions])


def pixels_of(images_CHW: torch.Tensor) -> NDArray[np.uint8]:
    """Return images in [0, 1] as bytes with the channels last; any axes may precede C."""
    return (images_CHW * 255).round().to(torch.uint8).movedim(-3, -1).numpy()
