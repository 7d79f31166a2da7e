"""The published loop without any saving: the baseline of every measurement of the engine.

Basu et al. 2024 sample one batch [clean, corrupted, restored] from start to end for every
component (and, for maps of single timesteps, for every step), with classifier-free guidance; a hook
copies the clean row's activation into the restored row of the conditional half. It has its own
hooks, sampler and scheduler loop; only inputs are the engine's: the noise on the subject, where the
subject is, and the seed's latent. In its favor, the text is encoded once where the UNet is traced,
and the image of the restored row alone is decoded.

Shapes: L token positions, D text width, C channels, H x W pixels.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.model.model import Diffusion, embedding_sigma, token_embedding
from engine.model.tokens import Span, find_subject, tokenize
from engine.tracing.corruption import noise_scale, subject_noise
from schemas.component import Part
from schemas.numerics import Numerics
from schemas.unit import Unit
from schemas.window import Window

CLEAN, RESTORED = 0, 2
BATCH = 3
"""Rows of a run: clean, corrupted, restored."""
Key = tuple[str, Window]
"""A component and the steps in which it is restored."""


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """The values that all runs of one unit share."""

    ids_3L: torch.Tensor
    noise_LD: torch.Tensor
    """The noise on the token embeddings of the corrupted and the restored row."""
    span: Span
    uncond_1LD: torch.Tensor


@torch.inference_mode()
def published_images(model: Diffusion, unit: Unit, numerics: Numerics) -> dict[Key, torch.Tensor]:
    """Return the restored run's image CHW of every component and window."""
    inputs = _inputs(model, unit, numerics)
    keys = [(name, window) for window in unit.windows for name in unit.components]
    if unit.part is Part.TEXT_ENCODER:
        return {key: _text_image(model, inputs, unit, numerics, key[0]) for key in keys}
    text_3LD = _encode(model, inputs)
    return {key: _unet_image(model, inputs, text_3LD, unit, numerics, key) for key in keys}


def _inputs(model: Diffusion, unit: Unit, numerics: Numerics) -> _Inputs:
    tokenizer = model.tokenizer
    span = find_subject(tokenizer, unit.caption)
    table = token_embedding(model.text_encoder)
    noise_LD = subject_noise(
        unit,
        span,
        shape=(tokenizer.model_max_length, table.embedding_dim),
        scale=noise_scale(numerics, embedding_sigma(model.text_encoder)),
    )
    ids_3L = tokenize(tokenizer, [unit.caption.caption] * BATCH).to(model.device)
    uncond_ids_1L = tokenize(tokenizer, [numerics.negative_prompt]).to(model.device)
    return _Inputs(
        ids_3L=ids_3L,
        noise_LD=noise_LD.to(model.device),
        span=span,
        uncond_1LD=model.text_encoder(uncond_ids_1L)[0],
    )


def _text_image(
    model: Diffusion, inputs: _Inputs, unit: Unit, numerics: Numerics, name: str
) -> torch.Tensor:
    """Restore a text-encoder component at the subject's last token, then sample the three rows."""
    module = model.text_encoder.get_submodule(f"encoder.{name.removeprefix('text_encoder.')}")
    with _hooked(module, lambda h: _copy_row(h, CLEAN, RESTORED, inputs.span.last)):
        text_3LD = _encode(model, inputs)
    return _sample(model, text_3LD, inputs.uncond_1LD, unit.seed, numerics)


def _unet_image(
    model: Diffusion,
    inputs: _Inputs,
    text_3LD: torch.Tensor,
    unit: Unit,
    numerics: Numerics,
    key: Key,
) -> torch.Tensor:
    """Sample the three rows, a UNet component being restored in a window."""
    name, window = key
    return _sample(
        model,
        text_3LD,
        inputs.uncond_1LD,
        unit.seed,
        numerics,
        module=model.denoiser.get_submodule(name.removeprefix("unet.")),
        window=window,
    )


def _encode(model: Diffusion, inputs: _Inputs) -> torch.Tensor:
    """Return the text rows, the clean one first; the other two are noised."""

    def add_noise(h_3LD: torch.Tensor) -> torch.Tensor:
        h_3LD[1:] += inputs.noise_LD.to(h_3LD.dtype)
        return h_3LD

    with _hooked(token_embedding(model.text_encoder), add_noise):
        return model.text_encoder(inputs.ids_3L)[0]


def _sample(
    model: Diffusion,
    text_3LD: torch.Tensor,
    uncond_1LD: torch.Tensor,
    seed: int,
    numerics: Numerics,
    *,
    module: nn.Module | None = None,
    window: Window = (0, 0),
) -> torch.Tensor:
    """Denoise the three rows with guidance and return the last one's image CHW in [0, 1]."""
    scheduler = copy.deepcopy(model.scheduler)
    scheduler.set_timesteps(numerics.steps, device=model.device)
    x = _latent(model, seed).repeat(BATCH, 1, 1, 1) * scheduler.init_noise_sigma
    both = torch.cat([uncond_1LD.repeat(BATCH, 1, 1), text_3LD])
    for step, t in enumerate(scheduler.timesteps):
        is_open = module is not None and window[0] <= step < window[1]
        with _hooked(module if is_open else None, _restore_conditional):
            doubled = scheduler.scale_model_input(torch.cat([x, x]), t).to(model.dtype)
            output = model.denoiser(doubled, t, encoder_hidden_states=both, return_dict=False)
            noise = output[0].float()
        uncond, cond = noise.chunk(2)
        x = scheduler.step(uncond + numerics.guidance * (cond - uncond), t, x).prev_sample
    restored = x[RESTORED:] / model.vae.config.scaling_factor
    image = model.vae.decode(restored, return_dict=False)[0][0]
    return (image / 2 + 0.5).clamp(0, 1).float().cpu()


def _latent(model: Diffusion, seed: int) -> torch.Tensor:
    size, channels = model.denoiser.config.sample_size, model.denoiser.config.in_channels
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, channels, size, size), generator=generator).to(model.device)


def _restore_conditional(h: torch.Tensor) -> torch.Tensor:
    """Copy the clean row into the restored one, in the conditional half alone."""
    return _copy_row(h, BATCH + CLEAN, BATCH + RESTORED)


def _copy_row(h: torch.Tensor, source: int, target: int, position: int | None = None) -> Any:
    """Copy a row's activation within the batch, in place as the authors' hooks do."""
    where: Sequence[Any] = (slice(None) if position is None else position,)
    h[(target, *where)] = h[(source, *where)]
    return h


@contextmanager
def _hooked(
    module: nn.Module | None, change: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """Change a module's output (of a tuple the first element) until exit."""
    if module is None:
        yield
        return

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
