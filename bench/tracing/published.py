"""The published loop without any saving: the baseline of every measurement of the engine.

Basu et al. 2024 sample one batch [clean, corrupted, restored] from start to end for every
component (and, for maps of single timesteps, for every step), with classifier-free guidance; a hook
copies the clean row's activation into the restored row of the conditional half. It has its own
hooks and its own loop; the engine's are the inputs (the noise on the subject, where the subject is,
the seed's latent) and what an architecture asks of every caller (`Family`: how it encodes, packs
and guides). In its favor, the text is encoded once where the denoiser is traced, and the image of
the restored row alone is decoded.

Shapes: L token positions, D text width, C channels, H x W pixels.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from engine.model.components import Site, list_sites
from engine.model.conditioning import Conditioning, joined
from engine.model.guidance import is_guided
from engine.model.hooks import Side
from engine.model.model import Diffusion, TextEncoder, embedding_sigma, token_embedding
from engine.model.opening import new_scheduler
from engine.model.sampling import initial_latent
from engine.model.schedulers import evaluated, initial_sigma
from engine.model.tokens import find_subject
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
Change = Callable[[torch.Tensor], torch.Tensor]


@torch.inference_mode()
def published_images(model: Diffusion, unit: Unit, numerics: Numerics) -> dict[Key, torch.Tensor]:
    """Return the restored run's image CHW of every component and window."""
    sites = {site.component.name: site for site in list_sites(model)}
    keys = [(name, window) for window in unit.windows for name in unit.components]
    if unit.part is Part.TEXT_ENCODER:
        return {
            (name, window): _sampled(
                model, _encoded(model, unit, numerics, site=sites[name]), unit.seed, numerics
            )
            for name, window in keys
        }
    cond = _encoded(model, unit, numerics)
    return {
        (name, window): _sampled(model, cond, unit.seed, numerics, site=sites[name], window=window)
        for name, window in keys
    }


def _encoded(
    model: Diffusion, unit: Unit, numerics: Numerics, *, site: Site | None = None
) -> Conditioning:
    """Return the three rows' conditioning, the clean one first; the other two are noised in every
    encoder. A component of a text encoder is restored at the subject's last token."""
    ids = model.token_ids([unit.caption.caption] * BATCH)
    with ExitStack() as stack:
        for number, encoder in enumerate(model.encoders):
            noise_LD = _noise(model, encoder, number, unit, numerics)
            table = token_embedding(encoder.module)
            stack.enter_context(_hooked(table, lambda h, noise_LD=noise_LD: _noised(h, noise_LD)))
        if site is not None:
            name = site.component.name.split(".")[0]
            own = next(encoder for encoder in model.encoders if encoder.name == name)
            last = find_subject(own.tokenizer, unit.caption).last
            change = _copy(site, CLEAN, RESTORED, position=last)
            stack.enter_context(_restoring(site, change))
        return model.family.encode(model, ids)


def _noise(
    model: Diffusion, encoder: TextEncoder, number: int, unit: Unit, numerics: Numerics
) -> torch.Tensor:
    noise_LD = subject_noise(
        unit,
        find_subject(encoder.tokenizer, unit.caption),
        shape=(encoder.tokenizer.model_max_length, token_embedding(encoder.module).embedding_dim),
        scale=noise_scale(numerics, embedding_sigma(encoder.module)),
        stream=f"{number or ''}",
    )
    return noise_LD.to(model.device)


def _noised(h_3LD: torch.Tensor, noise_LD: torch.Tensor) -> torch.Tensor:
    h_3LD[1:] += noise_LD.to(h_3LD.dtype)
    return h_3LD


def _sampled(
    model: Diffusion,
    cond: Conditioning,
    seed: int,
    numerics: Numerics,
    *,
    site: Site | None = None,
    window: Window = (0, 0),
) -> torch.Tensor:
    """Denoise the three rows and return the last one's image CHW in [0, 1]."""
    family, scheduler = model.family, new_scheduler(model, numerics)
    x = initial_latent(model, seed, numerics).repeat(BATCH, 1, 1, 1) * initial_sigma(scheduler)
    factor, channels = family.vae_factor(model.vae), x.shape[1]
    pixels = (x.shape[-2] * factor, x.shape[-1] * factor)
    halves = [cond]
    if is_guided(model, numerics):
        halves.insert(0, family.unconditional(model, numerics.negative_prompt).take([0] * BATCH))
    both, first = joined(halves), BATCH * (len(halves) - 1)
    scaled = getattr(scheduler, "scale_model_input", lambda value, _t: value)
    for step, t in enumerate(evaluated(scheduler)):
        is_open = site is not None and window[0] <= step < window[1]
        with ExitStack() as stack:
            if site is not None and is_open:
                cells = x[0, 0].numel()
                change = _copy(site, first + CLEAN, first + RESTORED, cells=cells)
                stack.enter_context(_restoring(site, change))
            doubled = scaled(torch.cat([x] * len(halves)), t)
            output = family.predict(
                model, doubled, t, both, guidance=numerics.guidance, pixels=pixels
            ).float()
        if first:
            output = family.guide(*output.chunk(2), guidance=numerics.guidance, channels=channels)
        x = scheduler.step(output[:, :channels], t, x, return_dict=False)[0]
    return family.decode(model, x[RESTORED:])[0].float().cpu()


def _copy(
    site: Site, source: int, target: int, *, cells: int = 0, position: int | None = None
) -> Change:
    """Return the function that copies a component's part of a row's activation within the batch, in
    place as the authors' hooks do; the latent has so many cells."""
    at = site.span(cells) if position is None else slice(position, position + 1)
    index = (..., site.channels or slice(None))
    index = index if at is None else (at, *index)

    def change(h: torch.Tensor) -> torch.Tensor:
        h[target][index] = h[source][index]
        return h

    return change


def _restoring(site: Site, change: Change) -> Any:
    """Change a component's activation until exit."""
    module, side, element = site.spot
    if side is Side.INPUT:
        return module.register_forward_pre_hook(lambda _m, args: (change(args[0]), *args[1:]))
    return _hooked(module, change, element=element)


@contextmanager
def _hooked(module: nn.Module, change: Change, *, element: int = 0) -> Iterator[None]:
    """Change a module's output, of a tuple one element, until exit."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return change(output)
        return tuple(change(h) if n == element else h for n, h in enumerate(output))

    with module.register_forward_hook(hook):
        yield
