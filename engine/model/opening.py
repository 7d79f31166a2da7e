"""Opening a text-to-image model: its networks, tokenizers and scheduler."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers.utils import logging as transformers_logging

from engine.files import is_folder
from engine.model.cut_points import check_fit
from engine.model.device import device_of
from engine.model.families.known import FAMILIES
from engine.model.hub import config_folder, model_folder
from engine.model.model import Diffusion, Family, Skeleton, TextEncoder
from engine.model.offload import HOST, must_share, take_turns
from engine.model.parts import (
    check_finite,
    check_weights,
    load_part,
    load_scheduler,
    load_tokenizer,
    part_class,
    part_skeleton,
)
from engine.model.registry import as_name, model_source, split_variant
from engine.model.schedulers import (
    ANY_TOKENS,
    check_scheduler,
    evaluated,
    own_scheduler,
    scheduler_named,
    set_steps,
)
from engine.model.settings import check_numbers, check_tokenizer
from engine.model.weight_files import PartError, no_variant, read_json
from schemas.errors import ModelUnavailable, PlanError
from schemas.numerics import Numerics
from schemas.printable import shown

DTYPES = ("float32", "bfloat16", "float16")
"""Types that the denoiser and the text encoders are opened in."""

# Each loading step draws a bar of its own; users should see the run's only.
diffusers_logging.disable_progress_bar()
transformers_logging.disable_progress_bar()


def open_model(
    name: str | Path,
    *,
    dtype: str = "float32",
    device: torch.device | str | None = None,
    offload: bool | None = None,
) -> Diffusion:
    """Return a model by name, folder or hub id, on `device` (by default this process's).

    `offload`: the text encoders and the denoiser take turns on the device and wait on the host;
    None: where the device does not hold the weights of both. ModelUnavailable: it is none of these,
    cannot be fetched, is of no known family, or is not complete, of the right shapes and finite in
    every part.
    """
    return open_with_pipeline(name, dtype=dtype, device=device, offload=offload)[0]


def open_with_pipeline(
    name: str | Path,
    *,
    dtype: str = "float32",
    device: torch.device | str | None = None,
    offload: bool | None = None,
) -> tuple[Diffusion, Any]:
    """Return a model as `open_model` does, and the diffusers pipeline that has its networks."""
    name = as_name(name)
    if offload not in (None, True, False):
        raise ModelUnavailable(f"offload {offload!r}: give True, False or None")
    if dtype not in DTYPES:
        raise ModelUnavailable(f"dtype {dtype!r}: give {', '.join(DTYPES)}")
    torch_device = device_of(device)
    with _naming(name):
        described = _described(name, model_folder(name))
        family, folder = described.family, described.folder
        variants = _check(described, with_weights=list(described.networks))
        shares = offload
        if shares is None:
            shares = must_share(_weight_bytes(described, dtype), torch_device)
        networks: dict[str, Any] = {}
        for part, kind in described.networks.items():
            used = _dtype_of(part, family, getattr(torch, dtype))
            loaded = load_part(folder / part, kind, variants[part], dtype=used)
            networks[part] = _frozen(loaded, HOST if shares else torch_device, used)
        tokenizers = {part: described.own_tokenizer(part) for _, part in described.encoders}
        scheduler = described.scheduler()
        absent = {part: None for part in described.absent}
        pipeline = family.assemble(
            {**networks, **tokenizers, **absent, "scheduler": scheduler}, settings=described.index
        )
        model = from_pipeline(
            pipeline,
            name=name,
            family=family,
            device=torch_device,
            dtype=getattr(torch, dtype),
            shares=shares,
        )
        for part in networks:
            check_finite(part, getattr(pipeline, part))
    return model, pipeline


def weight_bytes(name: str, *, dtype: str) -> dict[str, int]:
    """Return the bytes of the weights of each part of a model, opened in a dtype; no weights are
    read."""
    with _naming(name):
        return _weight_bytes(_described(name, config_folder(name)), dtype)


def _weight_bytes(described: "_Described", dtype: str) -> dict[str, int]:
    denoiser, family = getattr(torch, dtype), described.family
    return {
        part: sum(tensor.numel() for tensor in network.state_dict().values())
        * _dtype_of(part, family, denoiser).itemsize
        for part, network in described.skeletons().items()
    }


def _dtype_of(part: str, family: Family, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that a part is used in where the denoiser has `dtype`: the VAE's is
    float32."""
    if part == family.denoiser:
        return dtype
    is_text = part in dict(family.encoders)
    return family.text_dtype(dtype, part=part) if is_text else torch.float32


def check_model(name: str) -> None:
    """Raise ModelUnavailable if a model's headers and configs say that it cannot be opened.

    A hub model's weights are checked if this machine's cache has them, and else by the first
    worker.
    """
    with _naming(name):
        described = _described(name, config_folder(name))
        parts = described.networks
        is_local = is_folder(model_source(name))
        there = [p for p in parts if is_local or any((described.folder / p).glob("*.safetensors"))]
        _check(described, with_weights=there)


def _check(described: "_Described", *, with_weights: Sequence[str]) -> dict[str, str | None]:
    """Return the variant of each part's weights; PartError: the folder is damaged or incomplete."""
    family, networks = described.family, described.skeletons()
    check_numbers(networks)
    family.check_settings(networks)
    _check_own_size(described, networks)
    for encoder, part in described.encoders:
        tokenizer = described.tokenizer(part)
        check_tokenizer(
            tokenizer,
            networks[encoder],
            part,
            is_masked=family.masks_padding,
            sides=family.padding_sides,
        )
    _check_lengths(described, networks[family.denoiser])
    check_fit(_skeleton("", described, networks))
    check_scheduler(
        described.scheduler(),
        family.schedule,
        latent=family.latent_channels(networks[family.denoiser]),
        predicted=family.predicted_channels(networks[family.denoiser]),
        scaling=family.scaling,
    )
    wanted = described.variant
    variants = {
        part: check_weights(described.folder / part, networks[part], variant=wanted)
        for part in with_weights
    }
    if wanted is not None and with_weights and wanted not in variants.values():
        raise no_variant(wanted)
    return variants


def _check_own_size(described: "_Described", networks: Mapping[str, Any]) -> None:
    """Raise PartError if the model's own images are larger than its denoiser can draw."""
    family, skeleton = described.family, _skeleton("", described, networks)
    most, cells = family.most_cells(skeleton.denoiser), max(family.latent_size(skeleton))
    if most is not None and cells > most:
        raise PartError(
            f"its {family.denoiser} has the setting sample_size = {cells} and draws at most {most}"
        )


def _check_lengths(described: "_Described", denoiser: Any) -> None:
    """Raise PartError if text encoders whose rows stand side by side have other limits."""
    family = described.family
    own = [name for part, name in described.encoders if family.length_of(part, denoiser) is None]
    lengths = {name: described.own_tokenizer(name).model_max_length for name in own}
    if len(set(lengths.values())) > 1:
        (first, length), *_, (last, other) = lengths.items()
        raise PartError(
            f"its {last} has model_max_length = {other} and its {first} {length}: they must agree"
        )


def from_pipeline(
    pipeline: Any,
    *,
    name: str,
    family: Family,
    device: torch.device,
    dtype: torch.dtype,
    shares: bool = False,
) -> Diffusion:
    """Return the model of a diffusers pipeline, on a device and in a dtype.

    `shares`: the text encoders and the denoiser take turns on the device.
    """
    denoiser = getattr(pipeline, family.denoiser)
    first = HOST if shares else device
    encoders = tuple(
        TextEncoder(
            name=part,
            module=_frozen(getattr(pipeline, part), first, family.text_dtype(dtype, part=part)),
            tokenizer=family.prepare_tokenizer(
                getattr(pipeline, tokenizer), part=part, denoiser=denoiser
            ),
        )
        for part, tokenizer in family.encoders
        if getattr(pipeline, part) is not None
    )
    vae = getattr(pipeline, "vae", None)
    if shares:
        take_turns([[encoder.module for encoder in encoders], [denoiser]], device)
    return Diffusion(
        name=name,
        family=family,
        encoders=encoders,
        denoiser=_frozen(denoiser, first, dtype),
        vae=None if vae is None else _frozen(vae, device, torch.float32),
        scheduler=pipeline.scheduler,
        device=device,
        dtype=dtype,
        settings=pipeline.config,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """A diffusers folder, as its `model_index.json` describes it."""

    folder: Path
    family: Family
    index: Mapping[str, Any]
    variant: str | None
    """The variant that is read of the weights of every part that has it."""

    @property
    def absent(self) -> list[str]:
        """The parts that the family knows and this pipeline lacks, each with its tokenizer."""
        named = self.family.optional & self.index.keys()
        lacking = [part for part in named if self.index[part] in (None, [None, None])]
        of_encoder = dict(self.family.encoders)
        return [name for part in lacking for name in (part, of_encoder.get(part, part))]

    @property
    def networks(self) -> dict[str, type]:
        """The class of each part that the pipeline has."""
        return {p: kind for p, kind in self.family.networks.items() if p not in self.absent}

    @property
    def encoders(self) -> list[tuple[str, str]]:
        """The text encoders that the pipeline has, with their tokenizers."""
        return [pair for pair in self.family.encoders if pair[0] not in self.absent]

    def skeletons(self) -> dict[str, Any]:
        """Return every network without weights; PartError if the index says another class."""
        networks = {}
        for part, kind in self.networks.items():
            if part_class(self.index, part) is not kind:
                raise PartError(
                    f"its {part} is {shown(self.index.get(part))}: dqf opens {kind.__name__}"
                )
            networks[part] = part_skeleton(self.folder / part, kind)
        return networks

    def own_tokenizer(self, part: str) -> Any:
        """Return a tokenizer as it is stored, or the processor that has it."""
        folder, kind = self.folder / part, part_class(self.index, part)
        return load_tokenizer(folder, kind, in_processor=self.family.has_processor)

    def tokenizer(self, part: str) -> Any:
        """Return a tokenizer that reads captions as the pipeline does."""
        name = self.family.denoiser
        encoder = next(encoder for encoder, own in self.family.encoders if own == part)
        return self.family.prepare_tokenizer(
            self.own_tokenizer(part),
            part=encoder,
            denoiser=part_skeleton(self.folder / name, self.family.networks[name]),
        )

    def scheduler(self) -> Any:
        """Return the model's own scheduler."""
        return load_scheduler(self.folder / "scheduler", part_class(self.index, "scheduler"))


def open_tokenizer(name: str) -> Any:
    """Return a model's first tokenizer, without its weights."""
    with _naming(name):
        described = _described(name, config_folder(name))
        return described.tokenizer(described.family.encoders[0][1])


def open_tokenizers(name: str) -> dict[str, Any]:
    """Return the tokenizer of each of a model's text encoders, by its name, without weights."""
    with _naming(name):
        described = _described(name, config_folder(name))
        return {name: described.tokenizer(part) for name, part in described.encoders}


def _chosen(own: Any, name: str, scheduler: str | None) -> Any:
    return own_scheduler(own, name) if scheduler is None else scheduler_named(scheduler, own.config)


def count_steps(name: str, *, scheduler: str | None, steps: int) -> int:
    """Return how often a run evaluates the denoiser; second-order schedulers need more than
    `steps`.

    PlanError: the scheduler is unknown, is of another kind of model, or has fewer steps.
    """
    with _naming(name):
        described = _described(name, config_folder(name))
        chosen = _chosen(described.scheduler(), name, scheduler)
    family = described.family
    if steps < family.least_steps:
        raise PlanError(
            f"steps {steps}: dqf does not have the way in which {family.pipeline} takes fewer than "
            f"{family.least_steps} steps: give --steps {family.least_steps} or more"
        )
    # The size of the image shifts the steps, and does not change their number.
    schedule = family.schedule(chosen, steps=steps, tokens=ANY_TOKENS)
    set_steps(chosen, steps, schedule=schedule)
    return len(evaluated(chosen))


def check_size(name: str, *, height: int | None, width: int | None) -> None:
    """Raise PlanError if a model cannot draw images of so many pixels; None: its own size."""
    with _naming(name):
        described = _described(name, config_folder(name))
        networks = described.skeletons()
    family, denoiser = described.family, networks[described.family.denoiser]
    factor, most = family.vae_factor(networks.get("vae")), family.most_cells(denoiser)
    step = factor * family.patch_size(denoiser)
    for side, pixels in (("height", height), ("width", width)):
        if pixels is not None and pixels % step:
            raise PlanError(f"{side} {pixels}: model {name!r} draws multiples of {step} pixels")
        if pixels is not None and most is not None and pixels > most * factor:
            raise PlanError(f"{side} {pixels}: model {name!r} draws at most {most * factor} pixels")


def latent_cells(
    name: str, *, height: int | None, width: int | None
) -> tuple[int | None, int | None]:
    """Return the latent's height and width for an image of so many pixels; None stays None."""
    with _naming(name):
        described = _described(name, config_folder(name))
        factor = described.family.vae_factor(described.skeletons().get("vae"))
    return height and height // factor, width and width // factor


def open_skeleton(name: str) -> Skeleton:
    """Return a model's denoiser and text encoders on the meta device, from their configs alone."""
    with _naming(name):
        described = _described(name, config_folder(name))
        opened = _skeleton(name, described, described.skeletons())
        check_fit(opened)
    return opened


def _skeleton(name: str, described: "_Described", networks: Mapping[str, nn.Module]) -> Skeleton:
    family = described.family
    encoders = tuple(
        TextEncoder(name=part, module=networks[part])
        for part, _ in family.encoders
        if part in networks
    )
    denoiser = networks[family.denoiser]
    return Skeleton(
        name=name, family=family, encoders=encoders, denoiser=denoiser, settings=described.index
    )


def new_scheduler(model: Diffusion, numerics: Numerics) -> Any:
    """Return a new scheduler set to the steps of a run: the model's own, or the named one."""
    steps = numerics.steps
    _, height, width = model.latent_shape(height=numerics.height, width=numerics.width)
    fresh = copy.deepcopy(_chosen(model.scheduler, model.name, numerics.scheduler))
    tokens = height * width // model.family.patch_size(model.denoiser) ** 2
    schedule = model.family.schedule(fresh, steps=steps, tokens=tokens)
    set_steps(fresh, steps, device=model.device, schedule=schedule)
    return fresh


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Add the model's name to errors of its parts."""
    try:
        yield
    except PartError as error:
        raise ModelUnavailable(f"model {name!r} cannot be opened: {error}") from error


def _described(name: str, folder: Path) -> _Described:
    index = read_json(folder / "model_index.json")
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in FAMILIES:
        opened = f"dqf opens {', '.join(FAMILIES)} (docs/adding-a-model.md says how to add one)"
        raise ModelUnavailable(
            f"model {name!r} is a {kind if isinstance(kind, str) else shown(kind)}: {opened}"
        )
    _, variant = split_variant(name)
    return _Described(folder=folder, family=FAMILIES[kind], index=index, variant=variant)


def _frozen(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    # diffusers warns of every cast, even to the dtype that a module has.
    own = {tensor.dtype for tensor in module.parameters() if tensor.is_floating_point()}
    cast = module if own == {dtype} else module.to(dtype=dtype)
    return cast.to(device=device).eval().requires_grad_(False)
