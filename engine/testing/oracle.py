"""A patched run written the long way: each run alone, from the first step, nothing forked.

It shares no code with the engine's hooks, lockstep and text batches. What a component is, it takes
from the family's sites; the noise, which is arbitrary, from the engine.

Shapes: L token positions, C channels, h x w latent.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from engine.model.components import Site, list_sites
from engine.model.conditioning import Conditioning
from engine.model.hooks import HookPoint, Side
from engine.model.model import Diffusion, TextEncoder, token_embedding
from engine.model.opening import new_scheduler
from engine.model.schedulers import evaluated, initial_sigma
from engine.model.seeds import derived_seed
from engine.model.tokens import find_subject
from engine.tracing.corruption import noise_scale, subject_noise
from schemas.component import Part
from schemas.component_set import ComponentSet
from schemas.intervention import READ_TEXTS, Intervention, TokenRole
from schemas.numerics import Numerics
from schemas.unit import Unit
from schemas.window import Window

Change = Callable[[torch.Tensor], torch.Tensor]


class Oracle:
    """The clean, the corrupted and the patched runs of one unit, with noise at the input."""

    def __init__(self, model: Diffusion, unit: Unit, numerics: Numerics) -> None:
        self._model, self._unit, self._numerics = model, unit, numerics
        self._steps = len(evaluated(new_scheduler(model, numerics)))
        self._every_site = {site.component.name: site for site in list_sites(model)}
        self._sites = {name: self._every_site[name] for name in unit.components}
        self._kept: dict[bool, dict[str, list[list[torch.Tensor]]]] = {}
        self._conditionings: dict[bool, Conditioning] = {}
        _, height, width = model.latent_shape(height=numerics.height, width=numerics.width)
        self._cells = height * width

    @torch.no_grad()
    def clean(self) -> torch.Tensor:
        """Return the clean run's final latent."""
        return self._sampled(self._conditioning(is_noised=False))

    @torch.no_grad()
    def corrupted(self) -> torch.Tensor:
        """Return the corrupted run's final latent."""
        return self._sampled(self._conditioning(is_noised=True))

    @torch.no_grad()
    def patched(self, component: str, intervention: Intervention, window: Window) -> torch.Tensor:
        """Return the final latent of the run in which a component is patched in a window of steps.

        It is restored, corrupted or zeroed, in a text encoder at the subject's last token; a swap
        and the empty text replace the text that an attention reads; a skip leaves a block out.
        """
        site, is_noised = self._sites[component], intervention is Intervention.RESTORE
        share = 0 if intervention is Intervention.ZERO else 1
        if self._unit.part is Part.TEXT_ENCODER:
            last = [(site, TokenRole.LAST_SUBJECT)]
            return self._sampled(self._text_patched(last, share, is_noised=is_noised))
        cond = self._conditioning(is_noised=is_noised)
        if intervention is Intervention.SKIP:
            return self._sampled(cond, [(_at(site, Side.THROUGH), self._during(window, _same))])
        if intervention in READ_TEXTS:
            read = {side.name: _at(site, side) for side in (Side.TEXT, Side.MASK)}
            kept = self._activations(read, self._text_given(intervention))
        else:
            read = {component: site}
            if is_noised not in self._kept:
                other = self._conditioning(is_noised=not is_noised)
                self._kept[is_noised] = self._activations(self._sites, other)
            kept = self._kept[is_noised]
        return self._sampled(
            cond, [(at, self._written(at, window, kept[n], share)) for n, at in read.items()]
        )

    @torch.no_grad()
    def set_patched(self, together: ComponentSet, intervention: Intervention) -> torch.Tensor:
        """Return the final latent of the run in which a set is restored, corrupted or zeroed."""
        is_noised = intervention is Intervention.RESTORE
        share = 0 if intervention is Intervention.ZERO else 1
        site_of = {m: self._every_site[m.component.name] for m in together.members}
        tokens = [(site, m.token) for m, site in site_of.items() if m.token is not None]
        cond = self._text_patched(tokens, share, is_noised=is_noised)
        sites = {m.text: site for m, site in site_of.items() if m.token is None}
        kept = self._activations(sites, self._conditioning(is_noised=not is_noised))
        changed = [
            (site, self._written(site, m.window, kept[m.text], share))
            for m, site in site_of.items()
            if m.token is None
        ]
        return self._sampled(cond, changed)

    def image(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the image CHW of a final latent_1Chw."""
        with torch.no_grad():
            return self._model.family.decode(self._model, latent)[0].cpu()

    def _text_patched(
        self, places: Sequence[tuple[Site, TokenRole]], share: int, *, is_noised: bool
    ) -> Conditioning:
        """Return the conditioning whose text encoders are patched at the tokens of roles."""
        passed: list[list[torch.Tensor]] = [[] for _ in places]
        with ExitStack() as stack:
            for (site, _), kept in zip(places, passed, strict=True):
                stack.enter_context(_changing(site, _keeping(kept)))
            self._encoded(is_noised=not is_noised)
        with ExitStack() as stack:
            for (site, role), kept in zip(places, passed, strict=True):
                name = site.component.name.split(".")[0]
                encoder = next(e for e in self._model.encoders if e.name == name)
                tokenizer, caption = encoder.tokenizer, self._unit.caption
                span = find_subject(tokenizer, caption, self._numerics.occurrence)
                for positions in span.positions(role, tokenizer.model_max_length):
                    writing = _writing(site, share * kept[0], positions=list(positions))
                    stack.enter_context(_changing(site, writing))
            cond = self._encoded(is_noised=is_noised)
        return self._by_path(cond)

    def _written(
        self, site: Site, window: Window, kept: Sequence[Sequence[torch.Tensor]], share: int
    ) -> list[Change | None]:
        """Return the changes that write what was kept of each step of a window, if anything was."""
        span = site.span(self._cells)
        writing = [
            _writing(site, share * passed[0], positions=span) if passed else None for passed in kept
        ]
        return [
            change if window[0] <= step < window[1] else None for step, change in enumerate(writing)
        ]

    def _during(self, window: Window, change: Change) -> list[Change | None]:
        return [change if window[0] <= step < window[1] else None for step in range(self._steps)]

    def _text_given(self, intervention: Intervention) -> Conditioning:
        """Return the conditioning whose text an attention is given."""
        if intervention is Intervention.SWAP:
            return self._conditioning(is_noised=True)
        return self._model.family.encode(self._model, self._model.token_ids([""]))

    def _activations(
        self, sites: Mapping[str, Site], cond: Conditioning
    ) -> dict[str, list[list[torch.Tensor]]]:
        """Return the activation of each of the sites at each step of a whole run."""
        passed = {name: [[] for _ in range(self._steps)] for name in sites}
        keeping = [
            (site, [_keeping(step) for step in passed[name]]) for name, site in sites.items()
        ]
        self._sampled(cond, keeping)
        return passed

    def _conditioning(self, *, is_noised: bool) -> Conditioning:
        """Return the conditioning of the clean or the corrupted run."""
        if is_noised not in self._conditionings:
            self._conditionings[is_noised] = self._by_path(self._encoded(is_noised=is_noised))
        return self._conditionings[is_noised]

    @cached_property
    def _uncond(self) -> Conditioning | None:
        """The negative prompt's row; None where nothing is guided."""
        model, numerics = self._model, self._numerics
        if numerics.guidance <= 1 or not model.family.has_unconditional(model):
            return None
        return model.family.unconditional(model, numerics.negative_prompt)

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
        self, cond: Conditioning, changed: Sequence[tuple[Site, Sequence[Change | None]]] = ()
    ) -> torch.Tensor:
        """Return the final latent_1Chw; each site's activation is changed at each step, under the
        caption alone."""
        model, numerics = self._model, self._numerics
        scheduler = new_scheduler(model, numerics)
        shape = model.latent_shape(height=numerics.height, width=numerics.width)
        generator = torch.Generator().manual_seed(self._unit.seed)
        x = torch.randn((1, *shape), generator=generator) * initial_sigma(scheduler)
        channels = x.shape[1]
        uncond = self._uncond
        for step, t in enumerate(evaluated(scheduler)):
            scale = getattr(scheduler, "scale_model_input", lambda value, _t: value)
            out_uncond = None if uncond is None else self._predicted(scale(x, t), t, uncond)
            with ExitStack() as stack:
                for site, changes in changed:
                    if (change := changes[step]) is not None:
                        stack.enter_context(_changing(site, change))
                out = self._predicted(scale(x, t), t, cond)
            if out_uncond is not None:
                out = model.family.guide(
                    out_uncond, out, guidance=numerics.guidance, channels=channels
                )
            if "learned" not in (scheduler.config.get("variance_type") or ""):
                out = out[:, :channels]
            options = _noise_options(scheduler, self._unit.seed, step)
            x = scheduler.step(out, t, x, return_dict=False, **options)[0]
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


def _at(site: Site, side: Side) -> Site:
    """Return the site of another activation of a component's module, as the text that it reads."""
    return replace(site, spot=HookPoint(site.module, side), channels=None, positions=None)


def _same(h: torch.Tensor) -> torch.Tensor:
    return h


def _keeping(passed: list[torch.Tensor]) -> Change:
    """Return the function that keeps the one row of an activation."""

    def keep(h: torch.Tensor) -> torch.Tensor:
        passed.append(h[-1].clone())
        return h

    return keep


def _writing(site: Site, given: torch.Tensor, *, positions: slice | list[int] | None) -> Change:
    """Return the function that writes a component's part of the given activation."""
    index = (..., site.channels or slice(None))
    index = index if positions is None else (positions, *index)

    def write(h: torch.Tensor) -> torch.Tensor:
        written = h.clone()
        written[-1][index] = given[index]
        return written

    return write


def _with_last_row(h: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Return an activation with its last row, that of the caption, as given."""
    written = h.clone()
    written[-1] = given[-1]
    return written


@contextmanager
def _changing(site: Site, change: Change) -> Iterator[None]:
    """Pass the activation of a component's place through a function."""
    module, side, element = site.spot

    def after(_module: Any, _args: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return change(output)
        return tuple(change(h) if n == element else h for n, h in enumerate(output))

    def before(_module: Any, args: Any, kwargs: Any) -> Any:
        name = "encoder_hidden_states" if side is Side.TEXT else "attention_mask"
        given = kwargs.get(name)
        return args, kwargs if given is None else kwargs | {name: change(given)}

    def left_out(_module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        image = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        text = kwargs.get("encoder_hidden_states")
        if isinstance(output, tuple):
            pairs = zip(output, (text, image), strict=True)
            return tuple(None if h is None else _with_last_row(h, given) for h, given in pairs)
        return _with_last_row(output, image)

    if side in (Side.TEXT, Side.MASK):
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    elif side is Side.THROUGH:
        handle = module.register_forward_hook(left_out, with_kwargs=True)
    elif side is Side.INPUT:
        handle = module.register_forward_pre_hook(lambda _m, args: (change(args[0]), *args[1:]))
    else:
        handle = module.register_forward_hook(after)
    with handle:
        yield
