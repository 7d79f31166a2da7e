"""Opening a text-to-image model: its networks, tokenizers and scheduler."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import hf_hub_download
from huggingface_hub.constants import HF_HUB_OFFLINE
from torch import nn
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from engine.captions import tokenize
from engine.families.family import Family, TextEncoder
from engine.families.known import FAMILIES
from engine.files import is_file, is_folder
from engine.registry import BUILT_IN, hub_id, model_source
from engine.schedulers import scheduler_named
from engine.weights import model_folder
from schemas.errors import ModelUnavailable, first_line

# Each loading step draws its own bar; the run's is the only one a user should see.
diffusers_logging.disable_progress_bar()
transformers_logging.disable_progress_bar()


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """A model's networks, built from their configs on the meta device: shapes without weights."""

    name: str
    family: Family
    encoders: tuple[TextEncoder, ...]
    unet: Any

    @property
    def text_encoder(self) -> nn.Module:
        """The first text encoder."""
        return self.encoders[0].module


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """An opened text-to-image model, in evaluation mode."""

    name: str
    family: Family
    encoders: tuple[TextEncoder, ...]
    """Text encoders with their tokenizers, in the pipeline's order."""
    unet: Any
    vae: Any
    """None where the UNet works on pixels."""
    scheduler: Any
    """A template; each run takes a fresh copy from `new_scheduler`."""
    device: torch.device
    dtype: torch.dtype
    """Of the UNet and the text encoders; noise and the VAE stay in float32."""
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The pipeline's own, from `model_index.json`."""

    @property
    def tokenizer(self) -> Any:
        """The first text encoder's tokenizer."""
        return self.encoders[0].tokenizer

    @property
    def text_encoder(self) -> nn.Module:
        """The first text encoder."""
        return self.encoders[0].module

    def token_ids(self, captions: Sequence[str]) -> list[torch.Tensor]:
        """Return each text encoder's padded token ids of the captions, ids_RL."""
        return [tokenize(e.tokenizer, captions).to(self.device) for e in self.encoders]

    def latent_shape(self, *, height: int | None, width: int | None) -> tuple[int, int, int]:
        """Return channels, height and width of a latent for an image of so many pixels.

        None: the model's own size.
        """
        size = self.unet.config.sample_size
        own_height, own_width = (size, size) if isinstance(size, int) else size
        factor = self.family.vae_factor(self)
        return (
            self.unet.config.in_channels,
            own_height if height is None else height // factor,
            own_width if width is None else width // factor,
        )


def open_model(
    name: str, *, dtype: str = "float32", device: torch.device | str | None = None
) -> Diffusion:
    """Return the model of that name, folder or hub id, on `device` (the first GPU, else the CPU).

    ModelUnavailable: it is none of these, cannot be fetched, or is of no known family.
    """
    source = _checked_source(name)
    family = _family(source, name)
    try:
        pipeline = family.open_pipeline(
            str(_fetched(source, name)),
            dtype=torch.float32,
            low_cpu_mem_usage=False,
            use_safetensors=True,
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailable(f"model {name!r} cannot be opened: {first_line(error)}") from error
    torch_device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return from_pipeline(
        pipeline, name=name, family=family, device=torch_device, dtype=getattr(torch, dtype)
    )


def from_pipeline(
    pipeline: Any, *, name: str, family: Family, device: torch.device, dtype: torch.dtype
) -> Diffusion:
    """Return the model that a diffusers pipeline holds, moved to a device and dtype."""
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


def open_tokenizer(name: str) -> Any:
    """Return a model's first tokenizer, without its weights."""
    source = _checked_source(name)
    family = _family(source, name)
    _, subfolder = family.encoders[0]
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source if is_folder(source) else hub_id(source)[0],
            revision=hub_id(source)[1] or "main",
            subfolder=subfolder,
            local_files_only=_is_offline(source),
        )
    except (OSError, ValueError) as error:
        message = f"the tokenizer of model {name!r} cannot be opened: {first_line(error)}"
        raise ModelUnavailable(message) from error
    return family.prepare_tokenizer(tokenizer)


def open_scheduler(name: str, scheduler: str | None) -> Any:
    """Return a model's scheduler without its weights, or the one of that name in its place."""
    source = _checked_source(name)
    own = _read_config(source, "scheduler", name, file="scheduler_config.json")
    return scheduler_named(scheduler or own.get("_class_name", ""), own)


def open_skeleton(name: str) -> Skeleton:
    """Return a model's UNet and text encoders on the meta device, from their configs alone."""
    source = _checked_source(name)
    family = _family(source, name)
    parts = [part for part, _ in family.encoders]
    return skeleton_of(
        name,
        family=family,
        unet_config=_read_config(source, "unet", name),
        text_configs={part: _read_config(source, part, name) for part in parts},
    )


def skeleton_of(
    name: str,
    *,
    family: Family,
    unet_config: dict[str, Any],
    text_configs: dict[str, dict[str, Any]],
) -> Skeleton:
    """Return the networks that configs of a UNet and of each text encoder describe."""
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(unet_config)
        encoders = tuple(
            TextEncoder(name=part, module=family.text_skeleton(part, config).eval())
            for part, config in text_configs.items()
        )
    return Skeleton(name=name, family=family, encoders=encoders, unet=unet.eval())


def new_scheduler(model: Diffusion, *, scheduler: str | None, steps: int) -> Any:
    """Return a fresh scheduler set to `steps`: the model's own, or the one of that name."""
    own = model.scheduler
    fresh = copy.deepcopy(own) if scheduler is None else scheduler_named(scheduler, own.config)
    fresh.set_timesteps(steps, device=model.device)
    return fresh


def _checked_source(name: str) -> str:
    source = model_source(name)
    folder = Path(source)
    if is_folder(folder):
        if not is_file(folder / "model_index.json"):
            raise ModelUnavailable(
                f"model folder {name!r} has no model_index.json: give a diffusers pipeline folder"
            )
        return source
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise ModelUnavailable(
            f"unknown model {name!r}: give one of {', '.join(BUILT_IN)}, an existing diffusers "
            "folder, or a hub id such as CompVis/stable-diffusion-v1-4"
        )
    return source


def _fetched(source: str, name: str) -> Path:
    try:
        return model_folder(source)
    except Exception as error:
        raise ModelUnavailable(f"model {name!r} cannot be fetched: {first_line(error)}") from error


def _family(source: str, name: str) -> Family:
    kind = _read_config(source, None, name, file="model_index.json").get("_class_name")
    if kind not in FAMILIES:
        raise ModelUnavailable(
            f"model {name!r} is a {kind}: dqf opens {', '.join(FAMILIES)} "
            "(docs/adding-a-model.md says how to add one)"
        )
    return FAMILIES[kind]


def _read_config(
    source: str, subfolder: str | None, name: str, *, file: str = "config.json"
) -> dict[str, Any]:
    path = Path(source) / (subfolder or "") / file
    if not is_folder(source):
        try:
            repo, revision = hub_id(source)
            offline = _is_offline(source)
            path = Path(
                hf_hub_download(
                    repo, file, subfolder=subfolder, revision=revision, local_files_only=offline
                )
            )
        except Exception as error:
            raise ModelUnavailable(
                f"model {name!r} cannot be fetched: {first_line(error)}"
            ) from error
    return _read_json(path, name)


def _read_json(file: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except OSError as error:
        where = f"{file.parent.name}/{file.name}"
        raise ModelUnavailable(f"model {name!r} cannot be opened: no {where}") from error
    except json.JSONDecodeError as error:
        raise ModelUnavailable(
            f"model {name!r} cannot be opened: {file.name} is not JSON"
        ) from error


def _is_offline(source: str) -> bool:
    return is_folder(source) or HF_HUB_OFFLINE


def _frozen(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    # diffusers warns of every cast, even to the dtype that a module has.
    cast = module if next(module.parameters()).dtype == dtype else module.to(dtype=dtype)
    return cast.to(device=device).eval().requires_grad_(False)
