"""Two phases on one device: the text encoders encode, then the denoiser denoises.

Where a device's memory does not hold both, each waits on the host while the other runs. The VAE is
small and stays.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

HOST = torch.device("cpu")
FOR_WEIGHTS = 0.8
"""Share of a device's memory that weights may take; activations need the rest."""


def must_share(weights: Mapping[str, int], device: torch.device) -> bool:
    """Return whether a GPU is too small for all of a model's weights, bytes by part, at once."""
    if device.type != "cuda":
        return False
    return sum(weights.values()) > FOR_WEIGHTS * torch.cuda.mem_get_info(device)[1]


def take_turns(phases: Sequence[Sequence[nn.Module]], device: torch.device) -> None:
    """Let the modules of one phase at a time be on the device, from the call of one of them on; the
    others wait on the host."""
    for phase in phases:
        others = [module for other in phases if other is not phase for module in other]
        for module in phase:
            module.register_forward_pre_hook(_turn(phase, others, device))


def _turn(phase: Sequence[nn.Module], others: Sequence[nn.Module], device: torch.device) -> Any:
    def begin(module: nn.Module, arguments: Any) -> None:
        # Parameters that are moved in inference mode could not be changed by an edit.
        with torch.inference_mode(mode=False), torch.no_grad():
            for waiting in others:
                _move(waiting, HOST)
            for running in phase:
                _move(running, device)

    return begin


def _move(module: nn.Module, device: torch.device) -> None:
    if next(module.parameters()).device != device:
        module.to(device)
