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
from engine.model.families.known import FAMILIES
from engine.model.hub import config_folder, model_folder
from engine.model.model import Diffusion, Family, Skeleton, TextEncoder
from engine.model.parts import (
    check_finite,
    check_weights,
    load_part,
    load_scheduler,
    load_tokenizer,
    part_class,
    part_skeleton,
    skeleton,
)
from engine.model.registry import model_source
from engine.model.schedulers import own_scheduler, scheduler_named, set_steps
from engine.model.settings import check_tokenizer
from engine.model.weight_files import PartError, read_json
from schemas.errors import ModelUnavailable

# Each loading step draws a bar of its own; users should see the run's only.
diffusers_logging.disable_progress_bar()
transformers_logging.disable_progress_bar()


def open_model(
    name: str, *, dtype: str = "float32", device: torch.device | str | None = None
) -> Diffusion:
    """Return a model by name, folder or hub id, on `device` (by default the first GPU, else the
    CPU).

    ModelUnavailable: it is none of these, cannot be fetched, is of no known family, or is not
    complete, of the right shapes and finite in every part.
    """
    torch_device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with _naming(name):
        described = _described(name, model_folder(name))
        family, folder = described.family, described.folder
        variants = _check(described, with_weights=list(family.networks))
        networks = {
            part: load_part(folder / part, kind, variants[part])
            for part, kind in family.networks.items()
        }
        tokenizers = {part: described.tokenizer(part) for _, part in family.encoders}
        scheduler = described.scheduler()
        pipeline = family.assemble(
            {**networks, **tokenizers, "scheduler": scheduler}, settings=described.index
        )
        model = from_pipeline(
            pipeline, name=name, family=family, device=torch_device, dtype=getattr(torch, dtype)
        )
        for part in networks:
            check_finite(part, getattr(pipeline, part))
    return model


def check_model(name: str) -> None:
    """Raise ModelUnavailable if a model's headers and configs say that it cannot be opened.

    A hub model's weights are checked if this machine's cache has them, and else by the first
    worker.
    """
    with _naming(name):
        described = _described(name, config_folder(name))
        parts = described.family.networks
        is_local = is_folder(model_source(name))
        there = [p for p in parts if is_local or any((described.folder / p).glob("*.safetensors"))]
        _check(described, with_weights=there)


def _check(described: "_Described", *, with_weights: Sequence[str]) -> dict[str, str | None]:
    """Return the variant of each part's weights; PartError: the folder is damaged or incomplete."""
    family, networks = described.family, described.skeletons()
    family.check_settings(networks)
    for encoder, part in family.encoders:
        check_tokenizer(described.tokenizer(part), networks[encoder], part)
    described.scheduler()
    return {part: check_weights(described.folder / part, networks[part]) for part in with_weights}


def from_pipeline(
    pipeline: Any, *, name: str, family: Family, device: torch.device, dtype: torch.dtype
) -> Diffusion:
    """Return the model of a diffusers pipeline, on a device and in a dtype."""
    encoders = tuple(
        TextEncoder(
            name=part,
            module=_frozen(getattr(pipeline, part), device, family.text_dtype(dtype)),
            tokenizer=family.prepare_tokenizer(getattr(pipeline, tokenizer)),
        )
        for part, tokenizer in family.encoders
    )
    vae = getattr(pipeline, "vae", None)
    return Diffusion(
        name=name,
        family=family,
        encoders=encoders,
        unet=_frozen(pipeline.unet, device, dtype),
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

    def skeletons(self) -> dict[str, Any]:
        """Return every network without weights; PartError if the index says another class."""
        networks = {}
        for part, kind in self.family.networks.items():
            if part_class(self.index, part) is not kind:
                raise PartError(f"its {part} is {self.index.get(part)}: dqf opens {kind.__name__}")
            networks[part] = part_skeleton(self.folder / part, kind)
        return networks

    def tokenizer(self, part: str) -> Any:
        """Return a tokenizer that reads captions as the pipeline does."""
        return self.family.prepare_tokenizer(
            load_tokenizer(self.folder / part, part_class(self.index, part))
        )

    def scheduler(self) -> Any:
        """Return the model's own scheduler."""
        return load_scheduler(self.folder / "scheduler", part_class(self.index, "scheduler"))


def open_tokenizer(name: str) -> Any:
    """Return a model's first tokenizer, without its weights."""
    with _naming(name):
        described = _described(name, config_folder(name))
        return described.tokenizer(described.family.encoders[0][1])


def open_tokenizers(name: str) -> tuple[Any, ...]:
    """Return the tokenizers of a model's text encoders, without its weights."""
    with _naming(name):
        described = _described(name, config_folder(name))
        return tuple(described.tokenizer(part) for _, part in described.family.encoders)


def open_scheduler(name: str, scheduler: str | None) -> Any:
    """Return a model's scheduler without opening weights, or the scheduler of that name."""
    with _naming(name):
        own = _described(name, config_folder(name)).scheduler()
    if scheduler is None:
        return own_scheduler(own, name)
    return scheduler_named(scheduler, own.config)


def count_steps(name: str, *, scheduler: str | None, steps: int) -> int:
    """Return how often a run evaluates the UNet; second-order schedulers need more than `steps`.

    PlanError: the scheduler is unknown or has fewer steps.
    """
    chosen = open_scheduler(name, scheduler)
    set_steps(chosen, steps)
    return len(chosen.timesteps)


def open_skeleton(name: str) -> Skeleton:
    """Return a model's UNet and text encoders on the meta device, from their configs alone."""
    with _naming(name):
        described = _described(name, config_folder(name))
        networks = described.skeletons()
    return _skeleton(name, described.family, networks)


def skeleton_of(
    name: str,
    *,
    family: Family,
    unet_config: dict[str, Any],
    text_configs: dict[str, dict[str, Any]],
) -> Skeleton:
    """Return the networks that the configs of a UNet and of each text encoder describe."""
    configs = {"unet": unet_config, **text_configs}
    networks = {part: skeleton(family.networks[part], config) for part, config in configs.items()}
    return _skeleton(name, family, networks)


def _skeleton(name: str, family: Family, networks: Mapping[str, nn.Module]) -> Skeleton:
    encoders = tuple(TextEncoder(name=part, module=networks[part]) for part, _ in family.encoders)
    return Skeleton(name=name, family=family, encoders=encoders, unet=networks["unet"])


def new_scheduler(model: Diffusion, *, scheduler: str | None, steps: int) -> Any:
    """Return a new scheduler set to `steps`: the model's own, or the named one."""
    if scheduler is None:
        fresh = copy.deepcopy(own_scheduler(model.scheduler, model.name))
    else:
        fresh = scheduler_named(scheduler, model.scheduler.config)
    set_steps(fresh, steps, device=model.device)
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
        raise ModelUnavailable(
            f"model {name!r} is a {kind}: dqf opens {', '.join(FAMILIES)} "
            "(docs/adding-a-model.md says how to add one)"
        )
    return _Described(folder=folder, family=FAMILIES[kind], index=index)


def _frozen(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    # diffusers warns of every cast, even to the dtype that a module has.
    cast = module if next(module.parameters()).dtype == dtype else module.to(dtype=dtype)
    return cast.to(device=device).eval().requires_grad_(False)
