"""The shape of every component's activation, from a forward pass without weights."""

from typing import Any

import torch

from engine.model.components import list_sites
from engine.model.hooks import recording
from engine.model.model import Skeleton


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


def forward(model: Skeleton, x: torch.Tensor | None = None) -> torch.Tensor:
    """Return the denoiser's prediction for one row through the networks, on the meta device, for a
    latent `x`, by default one of `latent`."""
    family, denoiser = model.family, model.denoiser
    height, width = family.latent_size(model)
    ids = []
    for encoder in model.encoders:
        length = family.length_of(encoder.name, denoiser)
        if length is None:
            config: Any = encoder.module.config
            length = config.max_position_embeddings
        ids.append(torch.zeros(1, length, dtype=torch.long, device="meta"))
    cond = family.encode(model, ids)
    x = latent(model) if x is None else x
    t = torch.zeros((), device="meta")
    return family.predict(model, x, t, cond, guidance=1.0, pixels=(height, width))


def latent(model: Skeleton) -> torch.Tensor:
    """Return a latent of the model's own size, on the meta device."""
    height, width = model.family.latent_size(model)
    return torch.zeros(
        1, model.family.latent_channels(model.denoiser), height, width, device="meta"
    )
