"""The shape of every component's activation, from a forward pass without weights."""

from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from engine.model.components import list_sites
from engine.model.conditioning import Conditioning
from engine.model.hooks import recording
from engine.model.model import Skeleton

CAPTION_ROWS = 64
"""Text rows of a caption where padding is not computed."""


@torch.inference_mode()
def component_shapes(model: Skeleton) -> dict[str, tuple[int, ...]]:
    """Return the shape of one row of each component's activation, by component name.

    Denoiser: channels x height x width of resnets and blocks of a UNet, positions x channels of the
    others, at the model's own image size. Text encoders: tokens x channels. A block's is that of
    its output.
    """
    sites, (height, width) = list_sites(model), model.family.latent_size(model)
    with recording(site.spot for site in sites) as passed:
        forward(model)
    shapes = {}
    for site in sites:
        *outer, channels = passed[site.spot][0].shape[1:]  # a block's first is its output
        if site.channels is not None:
            channels = len(range(channels)[site.channels])
        if (span := site.span(height * width)) is not None:
            outer = [len(range(outer[0])[span])]
        shapes[site.component.name] = (*outer, channels)
    return shapes


@torch.no_grad()
def row_operations(model: Skeleton, *, height: int | None, width: int | None) -> int:
    """Return the floating-point operations of the denoiser on one row, of h x w latent cells, by
    default the model's own; counted in a forward pass without weights."""
    family, cond = model.family, conditioning(model)
    if not family.reads_padding:
        cond = replace(cond, text_RLD=cond.text_RLD[:, :CAPTION_ROWS])
    own = latent(model)
    x = own.new_zeros(1, own.shape[1], height or own.shape[2], width or own.shape[3])
    with FlopCounterMode(display=False) as counter:
        denoised(model, x, cond)
    return counter.get_total_flops()


def forward(model: Skeleton, x: torch.Tensor | None = None) -> torch.Tensor:
    """Return the denoiser's prediction for one row through the networks, on the meta device, for a
    latent `x`, by default one of `latent`."""
    cond = conditioning(model)
    return denoised(model, latent(model) if x is None else x, cond)


def denoised(model: Skeleton, x: torch.Tensor, cond: Conditioning) -> torch.Tensor:
    """Return the denoiser's prediction for a latent, on the meta device."""
    t, pixels = torch.zeros((), device="meta"), (x.shape[2], x.shape[3])
    return model.family.predict(model, x, t, cond, guidance=1.0, pixels=pixels)


def conditioning(model: Skeleton) -> Conditioning:
    """Return the text rows of one caption, on the meta device."""
    family, ids = model.family, []
    for encoder in model.encoders:
        length = family.length_of(encoder.name, model.denoiser)
        if length is None:
            config: Any = encoder.module.config
            length = config.max_position_embeddings
        ids.append(torch.zeros(1, length, dtype=torch.long, device="meta"))
    return family.encode(model, ids)


def latent(model: Skeleton) -> torch.Tensor:
    """Return a latent of the model's own size, on the meta device."""
    height, width = model.family.latent_size(model)
    channels = model.family.latent_channels(model.denoiser)
    return torch.zeros(1, channels, height, width, device="meta")
