"""The device of a process's networks.

Scores, keys and solutions are float64, which `mps` has not: tensors come to the CPU before they are
converted.
"""

import os

import torch

from schemas.errors import ModelUnavailable, first_line

MPS = "mps"
DEVICE = "DQF_DEVICE"
"""Variable by which `--device mps` reaches the workers of a local Ray, which sees no Apple GPU."""


def process_device() -> torch.device:
    """Return the first GPU, or else the CPU; `mps` where DQF_DEVICE says so."""
    if os.environ.get(DEVICE) == MPS:
        return torch.device(MPS)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(given: torch.device | str | None) -> torch.device:
    """Return the device of a name, by default this process's.

    ModelUnavailable: PyTorch has no such device, or this machine lacks it.
    """
    if given is None:
        return process_device()
    try:
        device = torch.device(given)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ModelUnavailable(f"device {given!r}: {first_line(error)}") from error
    if device.type not in ("cpu", "cuda", MPS):
        raise ModelUnavailable(f"device {given!r}: give cpu, cuda or mps")
    return device


def is_cpu() -> bool:
    """Return whether this process's networks run on the CPU."""
    return process_device().type == "cpu"


def is_there(kind: str) -> bool:
    """Return whether this process has a GPU of a kind, `cuda` or `mps`."""
    return torch.backends.mps.is_available() if kind == MPS else torch.cuda.is_available()
