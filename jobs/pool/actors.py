"""The Ray actors of a run: what they are made of, and the calls that each has in hand."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.pool.isolation import Isolation
from jobs.runs.run import Run, Task
from schemas.errors import ModelUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """What actors are made of, and how many there should be."""

    worker_class: type
    options: Mapping[str, Any]
    """Arguments of the class's constructor, besides the run's location."""
    gpus: float
    """GPUs that one actor takes."""
    target: Callable[[], int]
    """Returns the number of actors that the cluster has room for now."""


def start_actor(run: Run, staff: WorkerSpec) -> Any:
    """Return the handle of a new actor, which Ray starts once there is room for it."""
    import ray

    actor_class: Any = ray.remote(staff.worker_class).options(
        num_cpus=1, num_gpus=staff.gpus, max_restarts=0, max_task_retries=0,
        enable_task_events=False,
    )  # fmt: skip
    return actor_class.remote(run.location, **staff.options)


@dataclass(slots=True, kw_only=True)
class Call:
    """One call of an actor's method."""

    work: "Task | Isolation | int | None"
    """A task, the unit of an isolation, the number of a group to pack; None: the actor starts."""
    units: int = 1
    since: float | None = None
    """When the actor began with it."""


@dataclass(eq=False, kw_only=True)
class Actor:
    """An actor and its calls, in order."""

    handle: Any
    is_ready: bool = False
    calls: dict[Any, Call] = field(default_factory=dict[Any, Call])


def raise_from_constructor(error: BaseException) -> None:
    """Raise what a worker's constructor raised: Ray hands on its text alone."""
    text = str(error)
    found = re.search(r"schemas\.errors\.\w+: (.+)", text)
    if found:
        raise ModelUnavailable(found[1].strip()) from None
    raise RuntimeError(f"a worker could not start: {text}") from error
