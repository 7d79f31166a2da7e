"""A tracer written the long way: one patched run at a time, every run from step 0, nothing forked.

It shares no code with the engine's tracing, lockstep, sampling, hooks, components, interventions,
captions or text runs. Only random values, which are arbitrary, are the engine's: the noise draw and
the derived seeds. What a component is, it works out from its name.

Shapes: L token positions, D text width, C channels, h x w latent.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import diffusers
import torch

from engine.model.model import Diffusion
from engine.model.schedulers import SCHEDULERS
from engine.model.seeds import derived_seed
from engine.tracing.corruption import noise_draw
from schemas.component import Part
from schemas.numerics import Numerics
from schemas.unit import Unit

KINDS = (
    r"attn1",
    r"attn2",
    r"attn[12]\.heads\.\d+",
    r"ff",
    r"resnets\.\d+",
    r"self_attn",
    r"self_attn\.heads\.\d+",
    r"mlp",
    r"layers\.\d+",
    r"(down_blocks\.\d+|mid_block|up_blocks\.\d+)",
)
"""How the names of components end, by kind."""

Activations = list[Any]
"""Of one forward pass: the activation of each place, a tensor or a nested tuple of tensors."""


@dataclass(frozen=True)
class Key:
    """What names one patched run."""

    component: str
    intervention: str
    window: tuple[int, int]
    token: str = "all"
    positions: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Run:
    """A run in which nothing is changed."""

    text: str
    seed: int
    noised: bool = False
    stream: str = ""


@dataclass(frozen=True)
class Place:
    """Where one component's activation passes."""

    module: Any
    how: str
    """`output`, or `input` of a head's projection, or `text` that a cross-attention reads."""
    channels: slice = field(default_factory=lambda: slice(None))


class Oracle:
    """One unit's runs."""

    def __init__(self, model: Diffusion, unit: Unit, numerics: Numerics) -> None:
        self.model, self.unit, self.numerics = model, unit, numerics
        self.is_unet = unit.part is Part.DENOISER
        self.caches: dict[tuple[Run, bool], dict[str, list[Activations]]] = {}
        caption = unit.caption
        self.clean_run = Run(caption.caption, unit.seed)
        self.corrupted_run = Run(caption.caption, unit.seed, noised=True)
        if numerics.corruption == "counterfactual":
            other = caption.caption.replace(caption.subject, str(caption.counterfactual), 1)
            self.corrupted_run = Run(other, unit.seed)

    # What there is to change.

    def keys(self) -> Iterator[Key]:
        """Yield every patched run of the unit, in no particular order."""
        for component in self.unit.components:
            for intervention in self.unit.interventions:
                if intervention == "swap" and not component.endswith("attn2"):
                    continue
                if intervention == "other-seed" and not self.is_unet:
                    continue
                for window in self.unit.windows:
                    for token, positions in self.groups():
                        yield Key(component, str(intervention), window, token, positions)

    def groups(self) -> Iterator[tuple[str, tuple[int, ...] | None]]:
        """Yield the tokens that are changed together, with their name."""
        if self.is_unet:
            yield "all", None
            return
        subject, eos = self.subject, self.eos
        every = list(range(self.model.tokenizer.model_max_length))
        for role in self.unit.tokens:
            if role in ("words", "each"):
                yield from ((str(p), (p,)) for p in (every[1 : eos + 1], every)[role == "each"])
            else:
                yield (
                    str(role),
                    {
                        "last_subject": (subject[-1],),
                        "first_subject": (subject[0],),
                        "subject": tuple(subject),
                        "eos": (eos,),
                        "pads": tuple(every[eos + 1 :]),
                        "all": tuple(every),
                    }[str(role)],
                )

    @cached_property
    def subject(self) -> list[int]:
        """The positions of the subject's tokens."""
        text, subject = self.unit.caption.caption, self.unit.caption.subject
        begin, end = text.index(subject), text.index(subject) + len(subject)
        offsets = self.model.tokenizer(text, return_offsets_mapping=True).offset_mapping
        return [p for p, (a, b) in enumerate(offsets) if b > a and a < end and b > begin]

    @property
    def eos(self) -> int:
        """The position of the end-of-text token."""
        return len(self.model.tokenizer(self.unit.caption.caption).input_ids) - 1

    # Whole runs, which return the final latent.

    @torch.no_grad()
    def clean(self) -> torch.Tensor:
        """Return the clean run's final latent."""
        return self.denoise(self.text(self.clean_run), self.unit.seed)

    @torch.no_grad()
    def corrupted(self) -> torch.Tensor:
        """Return the corrupted run's final latent."""
        return self.denoise(self.text(self.corrupted_run), self.unit.seed)

    @torch.no_grad()
    def changed(self, key: Key) -> torch.Tensor:
        """Return the final latent of one patched run."""
        base = self.clean_run
        if key.intervention in ("restore", "other-seed", "other-caption", "other-draw", "matched"):
            base = self.corrupted_run
        donors = self.donors(key.intervention)
        swap = key.intervention == "swap"
        places = self.places(key.component, swap=swap)
        if not self.is_unet:
            given = mean_of([self.kept(run, key.component, swap=swap)[0] for run in donors])
            text = self.text(base, [(places, given, key.positions)])
            return self.denoise(text, base.seed)
        caches = [self.kept(run, key.component, swap=swap) for run in donors]
        cached = [mean_of(step) for step in zip(*caches, strict=True)]
        return self.denoise(
            self.text(base), base.seed, places=places, given=cached, window=key.window
        )

    def donors(self, intervention: str) -> list[Run]:
        """Return the runs whose mean activation is written."""
        seed, references = self.unit.seed, self.unit.references
        if intervention == "mean":
            return [Run(text, seed) for text in references]
        if intervention == "other-seed":
            return [Run(self.clean_run.text, derived_seed("other seed", seed))]
        caption = self.unit.caption
        if intervention in ("other-caption", "resample"):
            fit = [text for text in references if caption.subject not in text]
            of = (caption.caption, caption.subject, seed, self.unit.draw)
            return [Run(fit[derived_seed("other caption", *of) % len(fit)], seed)]
        if intervention == "other-draw":
            return [Run(caption.caption, seed, noised=True, stream=" of another draw")]
        if intervention == "matched":
            other = caption.caption.replace(caption.subject, str(caption.counterfactual), 1)
            return [Run(other, seed)]
        return {
            "restore": [self.clean_run],
            "corrupt": [self.corrupted_run],
            "swap": [self.corrupted_run],
            "zero": [],
        }[intervention]

    def pixels(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the image 1CHW of a final latent, in [0, 1]."""
        vae = self.model.vae
        with torch.no_grad():
            return (vae.decode(latent / vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)

    # The text encoder, one caption at a time.

    def text(self, run: Run, writes: Sequence[tuple[Any, Any, Any]] = ()) -> torch.Tensor:
        """Return the rows 1LD that the UNet reads, with activations written at positions."""
        at_input = not self.is_unet or self.numerics.noise_at == "input"
        encoder: Any = self.model.text_encoder
        table = encoder.get_input_embeddings()
        with ExitStack() as stack:
            if run.noised and at_input:
                add = self.adding(table.weight.std(), run.stream)
                stack.enter_context(hooked(Place(table, "output"), add))
            for places, given, positions in writes:
                for n, place in enumerate(places):
                    write = writing_tokens(given[n] if given else None, positions, place.channels)
                    stack.enter_context(hooked(place, write))
            rows = encoder(self.ids(run.text)).last_hidden_state
        if run.noised and not at_input:
            clean = encoder(self.ids(self.clean_run.text)).last_hidden_state
            return self.adding(clean.std(), run.stream)(rows)
        return rows

    def adding(self, sigma: torch.Tensor, stream: str) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the function that adds the subject's noise."""
        scale = self.numerics.noise_absolute or self.numerics.noise_sigmas * float(sigma)

        def add(h_1LD: torch.Tensor) -> torch.Tensor:
            noised = h_1LD.clone()
            draw = noise_draw(self.unit, (len(self.subject), h_1LD.shape[2]), stream)
            for n, position in enumerate(self.subject):
                noised[0, position] += scale * draw[n]
            return noised

        return add

    def ids(self, text: str) -> torch.Tensor:
        """Return the padded token ids 1L."""
        limit = self.model.tokenizer.model_max_length
        padded = self.model.tokenizer(text, padding="max_length", max_length=limit)
        return torch.tensor([padded.input_ids])

    # The UNet, one run at a time: two rows under guidance, else one.

    def kept(self, run: Run, component: str, *, swap: bool) -> list[Activations]:
        """Return a component's activations in an unchanged run, step by step.

        A text encoder has one step. The run is made once for all components.
        """
        if (run, swap) not in self.caches:
            names = [n for n in self.unit.components if n.endswith("attn2") or not swap]
            places = {name: self.places(name, swap=swap) for name in names}
            with ExitStack() as stack:
                steps = {n: stack.enter_context(recorded(p)) for n, p in places.items()}
                text = self.text(run)
                if self.is_unet:
                    self.denoise(text, run.seed)
            self.caches[run, swap] = {name: of_name() for name, of_name in steps.items()}
        return self.caches[run, swap][component]

    def new_scheduler(self) -> Any:
        """Return the scheduler as diffusers' pipelines set it up."""
        own = self.model.scheduler
        name = self.numerics.scheduler
        kind = type(own) if name is None else getattr(diffusers, SCHEDULERS.get(name, name))
        options = {"skip_prk_steps": True} if name == "pndm" else {}
        scheduler = kind.from_config(own.config, **options)
        scheduler.set_timesteps(self.numerics.steps)
        return scheduler

    def denoise(
        self,
        text: torch.Tensor,
        seed: int,
        *,
        places: Sequence[Place] = (),
        given: Sequence[Activations] = (),
        window: tuple[int, int] = (0, 0),
    ) -> torch.Tensor:
        """Return the final latent; at the steps of the window, activations are written."""
        unet, guidance = self.model.denoiser, self.numerics.guidance
        size = unet.config.sample_size
        scheduler = self.new_scheduler()
        shape = (1, unet.config.in_channels, size, size)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        x = x * scheduler.init_noise_sigma
        rows = text
        if guidance > 1:
            negative = self.ids(self.numerics.negative_prompt)
            rows = torch.cat([self.model.text_encoder(negative)[0], text])
        for step, t in enumerate(scheduler.timesteps):
            inputs = scheduler.scale_model_input(x.repeat(len(rows), 1, 1, 1), t)
            with ExitStack() as stack:
                for n, place in enumerate(places if window[0] <= step < window[1] else ()):
                    write = self.writing_rows(given[step][n] if given else None, place.channels)
                    stack.enter_context(hooked(place, write))
                out = unet(inputs, t, encoder_hidden_states=rows).sample
            if guidance > 1:
                out = out[:1] + guidance * (out[1:] - out[:1])
            x = scheduler.step(out, t, x, **noise_of(scheduler, seed, step)).prev_sample
        return x

    def writing_rows(self, given: Any, channels: slice) -> Callable[[Any], Any]:
        """Return the function that writes the conditional row, or both."""
        first = 0 if self.numerics.cfg_patch == "both" else -1

        def write(own: Any, at: tuple[int, ...] = ()) -> Any:
            if isinstance(own, tuple):
                return tuple(write(part, (*at, n)) for n, part in enumerate(own))
            written, value = own.clone(), given
            for n in at:
                value = None if value is None else value[n]
            written[first:, ..., channels] = 0 if value is None else value[first:, ..., channels]
            return written

        return write

    # Names.

    def places(self, component: str, *, swap: bool) -> list[Place]:
        """Return where a component, or each of FIRST..LAST, passes."""
        ends = component.split("..")
        names = execution_order(self.model, kind_of(ends[0])) if len(ends) == 2 else ends
        chosen = names[names.index(ends[0]) : names.index(ends[-1]) + 1]
        return [self.place(name, swap=swap) for name in chosen]

    def place(self, name: str, *, swap: bool) -> Place:
        """Return where one component passes."""
        path, _, head = name.partition(".heads.")
        module = module_at(self.model, path)
        if swap:
            return Place(module, "text")
        if not head:
            return Place(module, "output")
        is_unet = name.startswith("unet")
        projection = module.to_out[0] if is_unet else module.out_proj
        width = projection.in_features // (module.heads if is_unet else module.num_heads)
        begin = int(head) * width
        return Place(projection, "input", slice(begin, begin + width))


def noise_of(scheduler: Any, seed: int, step: int) -> dict[str, Any]:
    """Return the generator of a stochastic scheduler's step."""
    if "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    return {"generator": torch.Generator().manual_seed(derived_seed("scheduler noise", seed, step))}


def mean_of(runs: Sequence[Activations]) -> Activations:
    """Return the mean of runs' activations of one forward pass."""
    if len(runs) == 1:
        return runs[0]
    return [_mean(values) for values in zip(*runs, strict=True)]


def _mean(values: Sequence[Any]) -> Any:
    if isinstance(values[0], tuple):
        return tuple(_mean(parts) for parts in zip(*values, strict=True))
    return sum(values) / len(values)


def writing_tokens(given: Any, positions: Any, channels: slice) -> Callable[[Any], Any]:
    """Return the function that writes some positions of the one text row."""

    def write(own: torch.Tensor) -> torch.Tensor:
        written = own.clone()
        for position in positions:
            value = 0 if given is None else given[0, position, channels]
            written[0, position, channels] = value
        return written

    return write


@contextmanager
def hooked(place: Place, function: Callable[[Any], Any]) -> Iterator[None]:
    """Pass the activation of a place through a function."""
    module = place.module
    is_block = "Block2D" in type(module).__name__ and "Resnet" not in type(module).__name__

    def after(_module: Any, _args: Any, out: Any) -> Any:
        if isinstance(out, tuple) and not is_block:
            return (function(out[0]), *out[1:])
        return function(out)

    def before(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if place.how == "input":
            return (function(args[0]), *args[1:]), kwargs
        return args, kwargs | {"encoder_hidden_states": function(kwargs["encoder_hidden_states"])}

    if place.how == "output":
        handle = module.register_forward_hook(after)
    else:
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def recorded(places: Sequence[Place]) -> Iterator[Callable[[], list[Activations]]]:
    """Yield a function that returns the places' activations of every forward pass."""
    caches: list[Activations] = [[] for _ in places]

    def keeping(cache: Activations) -> Callable[[Any], Any]:
        def keep(value: Any) -> Any:
            cache.append(value)
            return value

        return keep

    with ExitStack() as stack:
        for place, kept in zip(places, caches, strict=True):
            stack.enter_context(hooked(place, keeping(kept)))
        yield lambda: [list(values) for values in zip(*caches, strict=True)]


def kind_of(name: str) -> str:
    """Return the one of KINDS that a name is of: the longest end of the name."""
    path = name.split(".", 1)[1]
    fitting = [kind for kind in KINDS if re.fullmatch(rf"(.*\.)?{kind}", path)]
    (kind,) = fitting
    return kind


def module_at(model: Diffusion, path: str) -> Any:
    """Return the module of a component's name without its head."""
    network, _, inner = path.partition(".")
    if network == "unet":
        return model.denoiser.get_submodule(inner)
    return model.text_encoder.get_submodule(f"encoder.{inner}")


def component_names(model: Diffusion) -> list[str]:
    """Return the names of all components, found by their spelling in the order they run."""
    return list(_names_by_running(model))


def execution_order(model: Diffusion, kind: str) -> list[str]:
    """Return the names of the components of one kind, in the order they run."""
    return [name for name in component_names(model) if kind_of(name) == kind]


@cache
def _names_by_running(model: Diffusion) -> tuple[str, ...]:
    """Run both networks once and note which modules named like components end, in order."""
    names: list[str] = []
    networks = {"unet": model.denoiser, "text_encoder": model.text_encoder}
    with ExitStack() as stack:
        for network, root in networks.items():
            for path, module in root.named_modules():
                inner = path.removeprefix("encoder.")
                if any(re.fullmatch(rf"(.*\.)?{kind}", inner) for kind in KINDS):
                    note = _noting(names, f"{network}.{inner}", module)
                    stack.callback(module.register_forward_hook(note).remove)
        ids = torch.tensor([model.tokenizer("a").input_ids])
        size = model.denoiser.config.sample_size
        with torch.no_grad():
            rows = model.text_encoder(ids)[0]
            x = torch.zeros(1, model.denoiser.config.in_channels, size, size)
            model.denoiser(x, 1, encoder_hidden_states=rows)
    return tuple(names)


def _noting(names: list[str], name: str, module: Any) -> Callable[..., None]:
    def note(*_: Any) -> None:
        heads = getattr(module, "heads", getattr(module, "num_heads", 0))
        if name.endswith(("attn1", "attn2", "self_attn")):
            names.extend(f"{name}.heads.{n}" for n in range(heads))
        names.append(name)

    return note
