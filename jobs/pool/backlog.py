"""The remaining work of a run: tasks, units that run alone, and groups of chunks to pack."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from jobs.pool.isolation import Isolation
from jobs.pool.limits import Limits
from jobs.pool.packing import Groups
from jobs.pool.task_queue import TaskQueue
from jobs.runs.parts import CorruptPart
from jobs.runs.run import Run, Task, TaskDone
from schemas.errors import TooManyFailures, first_line

logger = logging.getLogger(__name__)

LOSSES = 2
"""Actors that die at a task before it is isolated: a node may go for its own reasons."""
MIN_FAILED = 20
"""Failed units below which a run is not stopped."""


@dataclass(kw_only=True)
class Backlog:
    """The remaining work of a run and its outcomes."""

    run: Run[object]
    limits: Limits
    on_task: Callable[[TaskDone], None]
    queue: TaskQueue
    groups: Groups
    isolations: deque[Isolation] = field(default_factory=deque[Isolation])
    """Isolations that wait for an idle actor."""
    units: int = 0
    """Units that were done."""
    errors: Counter[str] = field(default_factory=Counter[str])
    """Errors of the units that failed, by name."""

    @classmethod
    def of(
        cls,
        run: Run[object],
        tasks: Iterable[Task],
        *,
        limits: Limits,
        on_task: Callable[[TaskDone], None],
    ) -> "Backlog":
        """Return the backlog of tasks; `on_task` gets the outcome of each."""
        tasks = list(tasks)
        queue, groups = TaskQueue(tasks), Groups(run, tasks)
        return cls(run=run, limits=limits, on_task=on_task, queue=queue, groups=groups)

    def __len__(self) -> int:
        """Return the number of tasks and groups that are left."""
        return self.queue.left + len(self.groups)

    def next_isolation(self) -> Isolation | None:
        """Return an isolation whose next unit is to run, if there is one."""
        while self.isolations:
            isolation = self.isolations.popleft()
            if not self.queue.is_done(isolation.task):  # by a copy that another actor had in hand
                return isolation
        return None

    def task_done(self, task: Task, done: TaskDone) -> None:
        """Count a committed task, once; TooManyFailures ends the run."""
        if not self.queue.finish(task, done.seconds):
            return
        self.on_task(done)
        self.units += done.units
        self.errors.update(done.errors)
        self._stop_if_too_many_failed()
        self.groups.task_done(task)

    def _stop_if_too_many_failed(self) -> None:
        failed = self.errors.total()
        if failed >= MIN_FAILED and failed > self.limits.failed * self.units:
            name, count = self.errors.most_common(1)[0]
            raise TooManyFailures(
                f"stopped: {failed} of {self.units} units failed, {count} of them with {name}; "
                f"they are recorded, the rest is left for {self.run.resume_hint()}, and "
                "--max-failed 1 continues whatever fails"
            )

    def task_ended_actor(self, task: Task, *, is_hung: bool) -> None:
        """Queue a task again whose actor died or hung at it; isolate it if it is to blame."""
        is_suspect = is_hung or self.queue.lose(task) >= LOSSES
        if is_suspect and self.queue.isolate(task):
            logger.warning("%s is isolated: its units run one at a time", task)
            self.isolations.append(Isolation.of(self.run, task))
        else:
            self.queue.give_back(task)

    def unit_over(self, isolation: Isolation) -> None:
        """Queue an isolation's next unit, or commit the task after the last one."""
        if not isolation.is_over:
            self.isolations.appendleft(isolation)
            return
        units = len(isolation.unit_ids)
        failures = isolation.failures
        self.run.commit(isolation.task, isolation.rows, failures, units=units)
        errors = tuple(failure.error for failure in failures)
        self.task_done(isolation.task, TaskDone(units=units, errors=errors))

    def pack_failed(self, group: int, error: BaseException) -> None:
        """Queue a group's packing again, or the chunks that it lacks."""
        logger.warning("packing group %d: %s", group, first_line(error))
        is_damaged = isinstance(error, CorruptPart | FileNotFoundError)
        for task in self.groups.failed(group, is_damaged=is_damaged):
            self.queue.reopen(task)
