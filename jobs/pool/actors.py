"""The Ray actors of a run: their specification, and starting one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from jobs.pool.worker import Worker
from jobs.runs.parts import Failure
from jobs.runs.run import Row, Run, Task, TaskDone


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """Specification and number of actors."""

    worker_class: type[Worker[Any]]
    options: Mapping[str, Any]
    """Arguments of the class's constructor, besides the run's location."""
    gpus: float
    """GPUs that one actor takes."""
    target: Callable[[], int]
    """Returns the number of actors that the cluster has room for now."""


class WorkerActor:
    """Makes its worker in `ready`, because Ray keeps the type of a method's error.

    Ray passes on a constructor's error as text only.
    """

    def __init__(self, make_worker: Callable[[], Worker[Any]]) -> None:
        self._make_worker = make_worker

    def ready(self) -> str:
        """Make the worker and return the hash of its code."""
        self._worker = self._make_worker()
        return self._worker.ready()

    def run(self, task: Task) -> TaskDone:
        """Do and commit a task."""
        return self._worker.run(task)

    def trace(self, task: Task, index: int) -> tuple[Sequence[Row], Failure | None]:
        """Return one unit's score rows, or its failure."""
        return self._worker.trace(task, index)

    def pack(self, group: int) -> None:
        """Pack a group of chunks."""
        self._worker.pack(group)


def start_actor(run: Run[object], spec: WorkerSpec) -> Any:
    """Return the handle of a new actor, which Ray starts once there is room for it."""
    import ray

    actor_class: Any = ray.remote(WorkerActor).options(
        num_cpus=1, num_gpus=spec.gpus, max_restarts=0, max_task_retries=0,
        enable_task_events=False,
    )  # fmt: skip
    return actor_class.remote(partial(spec.worker_class, run.location, **spec.options))
