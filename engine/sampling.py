"""The sampler: text conditionings, denoising with classifier-free guidance, decoding.

Shapes: R rows, L token positions, D text width, C channels, h x w latent, H x W pixels.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from engine.captions import tokenize
from engine.models import Diffusion, new_scheduler
from schemas.plan import Numerics


def encode(model: Diffusion, captions: Sequence[str]) -> torch.Tensor:
    """Return the text encoder's output rows cond_RLD for `captions`."""
    ids_RL = tokenize(model.tokenizer, captions).to(model.device)
    return model.text_encoder(ids_RL)[0]


def initial_latent(model: Diffusion, seed: int, numerics: Numerics) -> torch.Tensor:
    """Return z_T, 1 x C x h x w float32, from a CPU generator of that seed."""
    channels, height, width = model.latent_shape
    if numerics.height is not None:
        height = numerics.height // model.vae_factor
    if numerics.width is not None:
        width = numerics.width // model.vae_factor
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, channels, height, width), generator=generator).to(model.device)


def denoise(
    model: Diffusion,
    cond_RLD: torch.Tensor,
    *,
    seeds: Sequence[int],
    numerics: Numerics,
) -> torch.Tensor:
    """Return final latents_RChw; the rows advance together, row r from the latent of seeds[r].

    eps = eps_uncond + w (eps_cond - eps_uncond) (Ho and Salimans 2022); the UNet's batch is
    [uncond rows, cond rows], or the cond rows alone at w = 1. A stochastic scheduler draws its
    noise from one generator a row, so that rows of equal seed share it.
    """
    scheduler = new_scheduler(model, numerics.steps)
    x_RChw = torch.cat([initial_latent(model, seed, numerics) for seed in seeds])
    x_RChw = x_RChw * scheduler.init_noise_sigma
    context = _context(model, cond_RLD, numerics)
    options = _step_options(scheduler, seeds)
    for t in scheduler.timesteps:
        eps_RChw = _guided_noise(
            model, scheduler.scale_model_input(x_RChw, t), t, context, numerics
        )
        x_RChw = scheduler.step(eps_RChw, t, x_RChw, **options, return_dict=False)[0]
    return x_RChw


def _context(model: Diffusion, cond_RLD: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    if numerics.guidance <= 1:
        return cond_RLD
    uncond_1LD = encode(model, [numerics.negative_prompt])
    return torch.cat([uncond_1LD.expand_as(cond_RLD), cond_RLD])


def _guided_noise(
    model: Diffusion,
    x_RChw: torch.Tensor,
    t: torch.Tensor,
    context: torch.Tensor,
    numerics: Numerics,
) -> torch.Tensor:
    halves = len(context) // len(x_RChw)
    x = x_RChw.repeat(halves, 1, 1, 1).to(model.dtype)
    eps = model.unet(x, t, encoder_hidden_states=context, return_dict=False)[0].float()
    if halves == 1:
        return eps
    eps_uncond_RChw, eps_cond_RChw = eps.chunk(2)
    return eps_uncond_RChw + numerics.guidance * (eps_cond_RChw - eps_uncond_RChw)


def _step_options(scheduler: Any, seeds: Sequence[int]) -> dict[str, Any]:
    if "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    return {"generator": [torch.Generator().manual_seed(seed) for seed in seeds]}


def decode(model: Diffusion, latents_RChw: torch.Tensor) -> torch.Tensor:
    """Return images_RCHW in [0, 1], float32 on the CPU."""
    images_RCHW = model.vae.decode(
        latents_RChw / model.vae.config.scaling_factor, return_dict=False
    )[0]
    return (images_RCHW / 2 + 0.5).clamp(0, 1).float().cpu()


def sample(
    model: Diffusion,
    cond_RLD: torch.Tensor,
    *,
    seeds: Sequence[int],
    numerics: Numerics,
    rows: int,
) -> torch.Tensor:
    """Return images_RCHW of conditionings, `rows` at a time."""
    parts = [
        decode(
            model,
            denoise(
                model,
                cond_RLD[start : start + rows],
                seeds=seeds[start : start + rows],
                numerics=numerics,
            ),
        )
        for start in range(0, len(cond_RLD), rows)
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
    """Return one image a caption, images_RCHW in [0, 1]; caption r starts from seeds[r]."""
    if len(captions) != len(seeds):
        raise ValueError(f"{len(captions)} captions but {len(seeds)} seeds")
    return sample(model, encode(model, captions), seeds=seeds, numerics=numerics, rows=rows)
