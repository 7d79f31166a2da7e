"""A tracer written the long way: one component, one run at a time, activations cached in a list.

It shares no code with engine.tracing, engine.sampling, engine.hooks or engine.components; only the
noise draw, whose values are arbitrary, comes from engine.corruption.
"""

from typing import Any

import torch

from engine.corruption import noise_draw
from engine.models import Diffusion
from schemas.plan import Numerics, Unit


def naive_images(
    model: Diffusion, unit: Unit, component: str, numerics: Numerics
) -> list[torch.Tensor]:
    """Return the clean, corrupted and restored image of one component, each 1CHW in [0, 1]."""
    with torch.no_grad():
        return _Naive(model, unit, numerics).run(component)


class _Naive:
    def __init__(self, model: Diffusion, unit: Unit, numerics: Numerics) -> None:
        self.model, self.unit, self.numerics = model, unit, numerics
        text, subject = unit.caption.caption, unit.caption.subject
        encoded = model.tokenizer(text, return_offsets_mapping=True)
        begin = text.index(subject)
        end = begin + len(subject)
        self.positions = [
            p for p, (a, b) in enumerate(encoded.offset_mapping) if b > a and a < end and b > begin
        ]

    def run(self, component: str) -> list[torch.Tensor]:
        part, path = component.split(".", 1)
        if part == "unet":
            module = self.model.unet.get_submodule(path)
            clean, corrupted = self.text(noised=False), self.text(noised=True)
            cache: list[torch.Tensor] = []
            images = [self.image(clean, module, self.saver(cache)), self.image(corrupted)]
            return [*images, self.image(corrupted, module, self.restorer(cache))]
        module = self.model.text_encoder.get_submodule(f"encoder.{path}")
        cache = []
        clean = self.text(noised=False, module=module, hook=self.saver(cache))
        restored = self.text(noised=True, module=module, hook=self.token_restorer(cache))
        return [self.image(clean), self.image(self.text(noised=True)), self.image(restored)]

    def text(self, *, noised: bool, module: Any = None, hook: Any = None) -> torch.Tensor:
        ids = self.ids(self.unit.caption.caption)
        encoder: Any = self.model.text_encoder
        table = encoder.get_input_embeddings()
        draw = noise_draw(self.unit, (len(self.positions), table.weight.shape[1]))
        at_input = self.numerics.noise_at == "input"
        handles = [module.register_forward_hook(hook)] if module is not None else []
        if noised and at_input:
            noise = self.numerics.noise_sigmas * table.weight.std() * draw

            def add(_m: Any, _i: Any, out: torch.Tensor) -> torch.Tensor:
                out = out.clone()
                out[0, self.positions] += noise
                return out

            handles.append(table.register_forward_hook(add))
        rows = encoder(ids).last_hidden_state.clone()
        for handle in handles:
            handle.remove()
        if noised and not at_input:
            rows[0, self.positions] += self.numerics.noise_sigmas * rows.std() * draw
        return rows

    def ids(self, text: str) -> torch.Tensor:
        limit = self.model.tokenizer.model_max_length
        padded = self.model.tokenizer(text, padding="max_length", max_length=limit)
        return torch.tensor([padded.input_ids])

    def image(self, cond: torch.Tensor, module: Any = None, hook: Any = None) -> torch.Tensor:
        config = self.model.unet.config
        shape = (1, config.in_channels, config.sample_size, config.sample_size)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(self.unit.seed))
        uncond = self.model.text_encoder(self.ids("")).last_hidden_state
        scheduler = type(self.model.scheduler).from_config(self.model.scheduler.config)
        scheduler.set_timesteps(self.numerics.steps)
        handle = None if module is None else module.register_forward_hook(hook)
        for t in scheduler.timesteps:
            both = torch.cat([uncond, cond])
            a, b = self.model.unet(x.repeat(2, 1, 1, 1), t, encoder_hidden_states=both).sample
            x = scheduler.step((a + self.numerics.guidance * (b - a))[None], t, x).prev_sample
        if handle is not None:
            handle.remove()
        pixels = self.model.vae.decode(x / self.model.vae.config.scaling_factor).sample
        return (pixels / 2 + 0.5).clamp(0, 1)

    def saver(self, cache: list[torch.Tensor]) -> Any:
        return lambda _m, _i, out: cache.append((out[0] if isinstance(out, tuple) else out).clone())

    def restorer(self, cache: list[torch.Tensor]) -> Any:
        steps = iter(cache)

        def hook(_m: Any, _i: Any, out: torch.Tensor) -> torch.Tensor:
            saved = next(steps)
            if self.numerics.cfg_patch == "both":
                return saved
            return torch.stack([out[0], saved[1]])

        return hook

    def token_restorer(self, cache: list[torch.Tensor]) -> Any:
        def hook(_m: Any, _i: Any, out: Any) -> Any:
            rows = (out[0] if isinstance(out, tuple) else out).clone()
            rows[0, self.positions[-1]] = cache[0][0, self.positions[-1]]
            return (rows, *out[1:]) if isinstance(out, tuple) else rows

        return hook
