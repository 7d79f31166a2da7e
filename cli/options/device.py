"""The option `--device`: networks run on CPUs or on a GPU."""

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from cli.options.panels import RUNNING, option
from schemas.errors import ModelUnavailable

if TYPE_CHECKING:
    from jobs.cluster.connection import Cluster

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Variable that names the GPUs that a process and its local Ray use."""


class Device(StrEnum):
    """The kinds of device."""

    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


DeviceOption = Annotated[
    Device | None,
    option(
        f"cpu, cuda or mps (never tried); {VISIBLE} says which GPU.",
        panel=RUNNING,
        default="cuda if there are GPUs",
        metavar="DEVICE",
    ),
]


def cluster_on(
    device: Device | None,
    *,
    address: str | None = None,
    actors: int | None = None,
    gpus: float | None = None,
) -> "Cluster":
    """Return the cluster whose actors run on a device; None: a GPU each, if there are GPUs.

    ModelUnavailable: there is no Apple GPU for `mps`, or a cluster is to have one.
    """
    from jobs.cluster.connection import Cluster

    if device is Device.MPS:
        if address is not None:
            raise ModelUnavailable("--device mps is of this machine: leave --address out")
        use_here(device)
        return Cluster(actors=actors or 1, gpus_an_actor=0.0)  # they share the one GPU
    if device is not None:
        gpus = float(device is Device.CUDA)
    return Cluster(address=address, actors=actors, gpus_an_actor=gpus)


def use_here(device: Device | None) -> None:
    """Let this process, and those that it starts, use a device, before PyTorch looks for one.

    ModelUnavailable: there is no GPU for `cuda` or `mps`.
    """
    if device is Device.CPU:
        os.environ[VISIBLE] = ""
    elif device is not None:
        from engine.model.device import DEVICE, is_there

        if not is_there(device):
            why = (
                "this machine has no Apple GPU"
                if device is Device.MPS
                else (f"there is no GPU, or {VISIBLE} hides it")
            )
            raise ModelUnavailable(f"--device {device}: {why}")
        os.environ[DEVICE] = device.value
