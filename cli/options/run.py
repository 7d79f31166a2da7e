"""Options for the machines that compute a run; no score depends on them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options.device import Device, DeviceOption, cluster_on
from cli.options.panels import RUNNING, option
from cli.options.shared import with_options

if TYPE_CHECKING:
    from jobs.cluster.connection import Cluster
    from jobs.pool.limits import Limits


def here_or_there(address: str | None) -> str | None:
    """Return the address of a cluster; None for Ray's word for a new local Ray."""
    return None if address in ("local", "") else address


AddressOption = Annotated[
    str | None,
    option(
        "http://HEAD:8265 submits a job; HOST:PORT, or auto for this machine's cluster, drives "
        "from here.",
        panel=RUNNING,
        default="a local Ray",
        envvar="RAY_ADDRESS",
        callback=here_or_there,
    ),
]
WaitOption = Annotated[
    bool, option("Follow a job's log to its end.", "--wait/--no-wait", panel=RUNNING)
]
ActorsOption = Annotated[
    int | None,
    option(
        "Ray actors.", panel=RUNNING, metavar="N", default="as many as there is room for", min=1
    ),
]
RetryOption = Annotated[
    bool, option("Try only the failed units again.", "--retry-failed", panel=RUNNING)
]


MOST_GPUS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The machines that compute a run, and the limits at which it is given up."""

    address: str | None
    wait: bool
    """Whether a job is followed to its end."""
    actors: int | None
    device: Device | None
    gpus: float | None
    rows: int | None
    offload: bool | None
    unit_timeout: float
    max_failed: float

    def cluster(self) -> "Cluster":
        """Return the cluster on which actors run."""
        return cluster_on(self.device, address=self.address, actors=self.actors, gpus=self.gpus)

    def limits(self) -> "Limits":
        """Return the limits at which a unit and a run are given up."""
        from jobs.pool.limits import Limits

        return Limits(unit_s=self.unit_timeout, failed=self.max_failed)


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a run; it gets RunOptions as `how`."""
    return with_options(_declared, into="how", made_by=_made)(command)


def _made(options: dict[str, Any]) -> RunOptions:
    how = RunOptions(**options)
    how.cluster()  # is refused before work
    if how.device is not None and how.gpus is not None:
        raise typer.BadParameter("give --device or --gpus, not both")
    return how


def _whole_or_shared(gpus: float | None) -> float | None:
    """Return a number of GPUs that Ray can give an actor: a share of one GPU, or whole ones."""
    if gpus is not None and not (0 <= gpus <= 1 or (gpus.is_integer() and gpus <= MOST_GPUS)):
        raise typer.BadParameter(f"{gpus:g} is neither a share of one GPU nor a whole number")
    return gpus


def _declared(
    *,
    address: AddressOption = None,
    wait: WaitOption = False,
    actors: ActorsOption = None,
    device: DeviceOption = None,
    gpus: Annotated[
        float | None,
        option(
            "GPUs per actor; CUDA_VISIBLE_DEVICES says which GPUs there are.",
            panel=RUNNING,
            default="1 if there are GPUs",
            metavar="N",
            min=0,
            callback=_whole_or_shared,
        ),
    ] = None,
    rows: Annotated[
        int | None,
        option(
            "Batch size; changes no score.", panel=RUNNING, default="measured", metavar="N", min=2
        ),
    ] = None,
    offload: Annotated[
        bool | None,
        option(
            "Text encoders and denoiser take turns on the GPU; changes no score.",
            "--offload/--no-offload",
            panel=RUNNING,
            default="where a GPU does not hold both",
        ),
    ] = None,
    unit_timeout: Annotated[
        float, option("Seconds after which a unit fails.", panel=RUNNING, metavar="S", min=0.1)
    ] = 3600.0,
    max_failed: Annotated[
        float,
        option(
            "Share of failed units that stops the run.",
            panel=RUNNING,
            metavar="SHARE",
            min=0,
            max=1,
        ),
    ] = 0.1,
) -> None:
    """Declares the options; never called."""
