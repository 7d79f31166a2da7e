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
    sites = list_sites(model)
    with recording(site.spot for site in sites) as passed:
        forward(model)
    shapes = {}
    for site in sites:
        *outer, channels = passed[site.spot][0].shape[1:]  # a block's first is its output
        if site.channels is not None:
            channels = len(range(channels)[site.channels])
        if site.positions is not None:
            outer = [len(range(outer[0])[site.positions])]
        shapes[site.component.name] = (*outer, channels)
    return shapes


def forward(model: Skeleton) -> torch.Tensor:
    """Return the denoiser's prediction for one row through the networks, on the meta device."""
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
    x = torch.zeros(1, family.latent_channels(denoiser), height, width, device="meta")
    t = torch.zeros((), device="meta")
    return family.predict(model, x, t, cond, guidance=1.0, pixels=(height, width))
