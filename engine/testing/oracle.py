"""A patched run written the long way: each run alone, from the first step, nothing forked.

It shares no code with the engine's hooks, lockstep and text batches. What a component is, it takes
from the family's sites; the noise, which is arbitrary, from the engine.

Shapes: L token positions, C channels, h x w latent.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch

from engine.model.components import Site
from engine.model.conditioning import Conditioning
from engine.model.hooks import Side
from engine.model.model import Diffusion, TextEncoder, token_embedding
from engine.model.opening import new_scheduler
from engine.model.schedulers import evaluated, initial_sigma
from engine.model.seeds import derived_seed
from engine.model.tokens import find_subject
from engine.tracing.corruption import noise_scale, subject_noise
from schemas.component import Part
from schemas.intervention import Intervention
from schemas.numerics import Numerics
from schemas.unit import Unit
from schemas.window import Window

Change = Callable[[torch.Tensor], torch.Tensor]


class Oracle:
    """The clean, the corrupted and the patched runs of one unit, with noise at the input."""

    def __init__(self, model: Diffusion, unit: Unit, numerics: Numerics) -> None:
        self._model, self._unit, self._numerics = model, unit, numerics
        self._steps = len(evaluated(new_scheduler(model, numerics)))

    @torch.no_grad()
    def clean(self) -> torch.Tensor:
        """Return the clean run's final latent."""
        return self._sampled(self._encoded(is_noised=False))

    @torch.no_grad()
    def corrupted(self) -> torch.Tensor:
        """Return the corrupted run's final latent."""
        return self._sampled(self._by_path(self._encoded(is_noised=True)))

    @torch.no_grad()
    def patched(self, site: Site, intervention: Intervention, window: Window) -> torch.Tensor:
        """Return the final latent of the run in which a component is patched: restored, corrupted
        or zeroed, in a window of steps; in a text encoder at the subject's last token."""
        is_noised = intervention is Intervention.RESTORE
        in_text = site.component.part is Part.TEXT_ENCODER
        run = self._text_patched if in_text else self._denoiser_patched
        return run(site, intervention, window, is_noised=is_noised)

    def image(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the image CHW of a final latent_1Chw."""
        with torch.no_grad():
            return self._model.family.decode(self._model, latent)[0].cpu()

    def _text_patched(
        self, site: Site, intervention: Intervention, window: Window, *, is_noised: bool
    ) -> torch.Tensor:
        passed: list[torch.Tensor] = []
        with _changing(site, _keeping(passed)):
            self._encoded(is_noised=not is_noised)
        given = passed[0] * (intervention is not Intervention.ZERO)
        name = site.component.name.split(".")[0]
        encoder = next(e for e in self._model.encoders if e.name == name)
        last = find_subject(encoder.tokenizer, self._unit.caption, self._numerics.occurrence).last
        with _changing(site, _writing(site, given, positions=slice(last, last + 1))):
            cond = self._encoded(is_noised=is_noised)
        return self._sampled(self._by_path(cond))

    def _denoiser_patched(
        self, site: Site, intervention: Intervention, window: Window, *, is_noised: bool
    ) -> torch.Tensor:
        steps: list[list[torch.Tensor]] = [[] for _ in range(self._steps)]
        keeping = [_keeping(step) for step in steps]
        source = self._by_path(self._encoded(is_noised=not is_noised))
        self._sampled(source, site=site, changes=keeping)
        writing: list[Change | None] = [None] * self._steps
        for step in range(*window):
            given = steps[step][0] * (intervention is not Intervention.ZERO)
            writing[step] = _writing(site, given)
        cond = self._by_path(self._encoded(is_noised=is_noised))
        return self._sampled(cond, site=site, changes=writing)

    def _by_path(self, cond: Conditioning) -> Conditioning:
        """Return a conditioning of which only the path of the settings is not the clean run's."""
        path = self._numerics.path
        if cond.pooled_RP is None or path == "both":
            return cond
        clean = self._encoded(is_noised=False)
        if path == "tokens":
            return replace(cond, pooled_RP=clean.pooled_RP)
        return replace(cond, text_RLD=clean.text_RLD)

    def _encoded(self, *, is_noised: bool) -> Conditioning:
        model, caption = self._model, self._unit.caption.caption
        with ExitStack() as stack:
            for n, encoder in enumerate(model.encoders if is_noised else ()):
                table = token_embedding(encoder.module)
                noise_LD = self._noise(encoder, n, table(torch.arange(table.num_embeddings)))
                handle = table.register_forward_hook(lambda _m, _a, h, noise=noise_LD: h + noise)
                stack.callback(handle.remove)
            return model.family.encode(model, model.token_ids([caption]))

    def _noise(self, encoder: TextEncoder, n: int, table_VD: torch.Tensor) -> torch.Tensor:
        sigma = float(table_VD.float().std())
        return subject_noise(
            self._unit,
            find_subject(encoder.tokenizer, self._unit.caption, self._numerics.occurrence),
            shape=(encoder.tokenizer.model_max_length, table_VD.shape[1]),
            scale=noise_scale(self._numerics, sigma),
            stream=f"{n or ''}",
        )

    def _sampled(
        self,
        cond: Conditioning,
        *,
        site: Site | None = None,
        changes: Sequence[Change | None] = (),
    ) -> torch.Tensor:
        """Return the final latent_1Chw; `changes` are those of the site's activation by step, under
        the caption alone."""
        model, numerics = self._model, self._numerics
        scheduler = new_scheduler(model, numerics)
        shape = model.latent_shape(height=numerics.height, width=numerics.width)
        generator = torch.Generator().manual_seed(self._unit.seed)
        x = torch.randn((1, *shape), generator=generator) * initial_sigma(scheduler)
        is_guided = numerics.guidance > 1 and model.family.has_unconditional(model.denoiser)
        uncond = model.family.unconditional(model, numerics.negative_prompt) if is_guided else None
        for step, t in enumerate(evaluated(scheduler)):
            scale = getattr(scheduler, "scale_model_input", lambda value, _t: value)
            with ExitStack() as stack:
                out_uncond = None if uncond is None else self._predicted(scale(x, t), t, uncond)
                change = changes[step] if changes else None
                if site is not None and change is not None:
                    stack.enter_context(_changing(site, change))
                out = self._predicted(scale(x, t), t, cond)
            if out_uncond is not None:
                channels = x.shape[1]
                out = model.family.guide(
                    out_uncond, out, guidance=numerics.guidance, channels=channels
                )
            options = _noise_options(scheduler, self._unit.seed, step)
            x = scheduler.step(out[:, : x.shape[1]], t, x, return_dict=False, **options)[0]
        return x

    def _predicted(self, x: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> torch.Tensor:
        model = self._model
        factor = model.family.vae_factor(model.vae)
        return model.family.predict(
            model,
            x,
            t,
            cond,
            guidance=self._numerics.guidance,
            pixels=(x.shape[-2] * factor, x.shape[-1] * factor),
        )


def _noise_options(scheduler: Any, seed: int, step: int) -> dict[str, torch.Generator]:
    """Return the generator of a stochastic scheduler's step."""
    if "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    drawn = derived_seed("scheduler noise", seed, step)
    return {"generator": torch.Generator().manual_seed(drawn)}


def _keeping(passed: list[torch.Tensor]) -> Change:
    """Return the function that keeps the one row of an activation."""

    def keep(h: torch.Tensor) -> torch.Tensor:
        passed.append(h[-1].clone())
        return h

    return keep


def _writing(site: Site, given: torch.Tensor, *, positions: slice | None = None) -> Change:
    """Return the function that writes a component's part of the given activation."""
    at = positions or site.positions
    index = (..., site.channels or slice(None))
    index = index if at is None else (at, *index)

    def write(h: torch.Tensor) -> torch.Tensor:
        written = h.clone()
        written[-1][index] = given[index]
        return written

    return write


@contextmanager
def _changing(site: Site, change: Change) -> Iterator[None]:
    """Pass the activation of a component's place through a function."""
    module, side, element = site.spot

    def after(_module: Any, _args: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return change(output)
        return tuple(change(h) if n == element else h for n, h in enumerate(output))

    if side is Side.INPUT:
        handle = module.register_forward_pre_hook(lambda _m, args: (change(args[0]), *args[1:]))
    else:
        handle = module.register_forward_hook(after)
    with handle:
        yield
