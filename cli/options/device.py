"""The option `--device`: networks run on CPUs or on a GPU."""

import os
from enum import StrEnum
from typing import Annotated

from cli.options.panels import RUNNING, option
from schemas.errors import ModelUnavailable

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Variable that names the GPUs that a process and its local Ray use."""


class Device(StrEnum):
    """The kinds of device."""

    CPU = "cpu"
    CUDA = "cuda"


DeviceOption = Annotated[
    Device | None,
    option(
        f"cpu or cuda; {VISIBLE} says which GPU.",
        panel=RUNNING,
        default="cuda if there are GPUs",
        metavar="DEVICE",
    ),
]


def gpus_of(device: Device | None) -> float | None:
    """Return the GPUs of an actor on a device; None: one if there are GPUs."""
    return None if device is None else float(device is Device.CUDA)


def use_here(device: Device | None) -> None:
    """Let this process use a device, before PyTorch looks for one.

    ModelUnavailable: there is no GPU for `cuda`.
    """
    if device is Device.CPU:
        os.environ[VISIBLE] = ""
    elif device is Device.CUDA:
        from engine.model.calibration import has_gpu

        if not has_gpu():
            raise ModelUnavailable(f"--device cuda: there is no GPU, or {VISIBLE} hides it")
