"""The shape of every component's activation, from a forward pass without weights."""

import torch

from engine.model.components import list_sites
from engine.model.hooks import recording
from engine.model.model import Skeleton

TOKENS = 77
"""Token positions of an encoder whose config does not limit them (T5)."""


@torch.inference_mode()
def component_shapes(model: Skeleton) -> dict[str, tuple[int, ...]]:
    """Return the shape of one row of each component's activation, by component name.

    UNet: channels x height x width of resnets and blocks, positions x channels of the others, at
    the model's own image size. Text encoders: tokens x channels. A block's is that of its output.
    """
    sites = list_sites(model)
    with recording(site.spot for site in sites) as passed:
        forward(model)
    shapes = {}
    for site in sites:
        *outer, channels = passed[site.spot][0].shape[1:]  # a block's first is its output
        if site.channels is not None:
            channels = site.channels.stop - site.channels.start
        shapes[site.component.name] = (*outer, channels)
    return shapes


def forward(model: Skeleton) -> torch.Tensor:
    """Return the denoiser's output for one row through the networks, on the meta device."""
    config = model.unet.config
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    ids = []
    for encoder in model.encoders:
        length = getattr(encoder.module.config, "max_position_embeddings", TOKENS)
        ids.append(torch.zeros(1, length, dtype=torch.long, device="meta"))
    cond = model.family.encode(model, ids)
    options = model.family.unet_options(model, cond, pixels=(height, width))
    if config.time_cond_proj_dim is not None:
        options["timestep_cond"] = torch.zeros(1, config.time_cond_proj_dim, device="meta")
    x = torch.zeros(1, config.in_channels, height, width, device="meta")
    t = torch.zeros((), device="meta")
    return model.unet(x, t, encoder_hidden_states=cond.text_RLD, **options).sample
