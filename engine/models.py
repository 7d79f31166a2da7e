"""Opening a text-to-image model: the only file that imports diffusers and transformers."""

import copy
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import hf_hub_download
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from engine.registry import BUILT_IN, model_source
from schemas.errors import ModelUnavailable, first_line

# Each loading step draws its own bar; the run's is the only one a user should see.
diffusers_logging.disable_progress_bar()
transformers_logging.disable_progress_bar()


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """A model's networks, built from their configs on the meta device: shapes without weights."""

    name: str
    text_encoder: nn.Module
    unet: nn.Module


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """An opened text-to-image model, in evaluation mode."""

    name: str
    tokenizer: Any
    text_encoder: nn.Module
    unet: Any
    vae: Any
    scheduler: Any
    """A template; each run takes a fresh copy from `new_scheduler`."""
    device: torch.device
    dtype: torch.dtype
    """Of the UNet and the text encoder; noise and the VAE stay in float32."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the model's own latent."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config.in_channels, height, width

    @property
    def vae_factor(self) -> int:
        """Pixels per latent cell along one side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)


def open_model(
    name: str, *, dtype: str = "float32", device: torch.device | str | None = None
) -> Diffusion:
    """Return the model of that name, folder or hub id, on `device` (the first GPU, else the CPU).

    ModelUnavailable: it is none of these, cannot be fetched, or is no Stable Diffusion pipeline.
    """
    source = _checked_source(name)
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            source,
            dtype=torch.float32,
            low_cpu_mem_usage=False,
            use_safetensors=True,
            safety_checker=None,
            requires_safety_checker=False,
            local_files_only=_is_offline(source),
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailable(f"model {name!r} cannot be opened: {first_line(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    torch_device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch_dtype = getattr(torch, dtype)
    return Diffusion(
        name=name,
        tokenizer=pipeline.tokenizer,
        text_encoder=_frozen(pipeline.text_encoder, torch_device, torch_dtype),
        unet=_frozen(pipeline.unet, torch_device, torch_dtype),
        vae=_frozen(pipeline.vae, torch_device, torch.float32),
        scheduler=pipeline.scheduler,
        device=torch_device,
        dtype=torch_dtype,
    )


def open_tokenizer(name: str) -> Any:
    """Return a model's tokenizer, without its weights."""
    source = _checked_source(name)
    try:
        return CLIPTokenizer.from_pretrained(
            source, subfolder="tokenizer", local_files_only=_is_offline(source)
        )
    except (OSError, ValueError) as error:
        message = f"the tokenizer of model {name!r} cannot be opened: {first_line(error)}"
        raise ModelUnavailable(message) from error


def open_skeleton(name: str) -> Skeleton:
    """Return a model's UNet and text encoder on the meta device, from their configs alone."""
    source = _checked_source(name)
    unet_config = _read_config(source, "unet", name)
    text_config = _read_config(source, "text_encoder", name)
    return skeleton_of(name, unet_config=unet_config, text_config=text_config)


def skeleton_of(name: str, *, unet_config: dict[str, Any], text_config: dict[str, Any]) -> Skeleton:
    """Return the networks that a UNet config and a CLIP text config describe, without weights."""
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(unet_config)
        text_encoder = CLIPTextModel(CLIPTextConfig.from_dict(text_config))
    return Skeleton(name=name, text_encoder=text_encoder, unet=unet)


def new_scheduler(model: Diffusion, steps: int) -> Any:
    """Return a fresh scheduler set to `steps`: some keep state from one step to the next."""
    scheduler = copy.deepcopy(model.scheduler)
    scheduler.set_timesteps(steps, device=model.device)
    return scheduler


def _checked_source(name: str) -> str:
    source = model_source(name)
    folder = Path(source)
    if folder.is_dir():
        index = folder / "model_index.json"
        if not index.is_file():
            raise ModelUnavailable(
                f"model folder {name!r} has no model_index.json: give a diffusers pipeline folder"
            )
        kind = _read_json(index, name).get("_class_name")
        if kind != "StableDiffusionPipeline":
            raise ModelUnavailable(
                f"model {name!r} is a {kind}: only StableDiffusionPipeline is supported so far"
            )
        return source
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise ModelUnavailable(
            f"unknown model {name!r}: give one of {', '.join(BUILT_IN)}, an existing diffusers "
            "folder, or a hub id such as CompVis/stable-diffusion-v1-4"
        )
    return source


def _read_config(source: str, subfolder: str, name: str) -> dict[str, Any]:
    file = Path(source) / subfolder / "config.json"
    if not Path(source).is_dir():
        try:
            offline = _is_offline(source)
            file = Path(
                hf_hub_download(
                    source, "config.json", subfolder=subfolder, local_files_only=offline
                )
            )
        except Exception as error:
            raise ModelUnavailable(
                f"model {name!r} cannot be fetched: {first_line(error)}"
            ) from error
    return _read_json(file, name)


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
    return Path(source).is_dir() or os.environ.get("HF_HUB_OFFLINE") == "1"


def _frozen(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    # diffusers warns of every cast, even to the dtype that a module has.
    cast = module if next(module.parameters()).dtype == dtype else module.to(dtype=dtype)
    return cast.to(device=device).eval().requires_grad_(False)
