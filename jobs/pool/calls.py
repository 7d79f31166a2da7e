"""Calls of actors' methods, one class per method, with the effect of each outcome."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jobs.pool.backlog import Backlog
from jobs.pool.isolation import Isolation
from jobs.pool.starts import Starts
from jobs.runs.parts import Failure
from jobs.runs.run import Row, Task, TaskDone


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The end of an actor."""

    error: BaseException
    is_hung: bool
    """Whether it was ended because its first call took too long."""


@dataclass(eq=False, kw_only=True)
class Call(ABC):
    """A call that an actor has in hand."""

    counts_errors: ClassVar[bool] = True
    """Whether its error counts toward the consecutive errors that end a run."""
    is_alone: ClassVar[bool] = False
    """Whether its actor gets no other call while it is in hand."""
    units: int | None
    """Number of units whose time limit the call may use; None: no limit."""
    since: float | None = None
    """When the actor began with it."""

    @abstractmethod
    def send(self, handle: Any) -> Any:
        """Return Ray's reference of the call's result."""

    @abstractmethod
    def done(self, result: Any) -> None:
        """Take its result."""

    @abstractmethod
    def raised(self, error: BaseException) -> None:
        """Return its work to the backlog, as the error is not that of a unit."""

    @abstractmethod
    def lost(self, loss: Loss, *, is_first: bool) -> None:
        """Return its work to the backlog, as the actor is gone; only an actor's first call is to
        blame."""

    def begun(self) -> None:
        """Note that the actor works on it now."""
        self.since = time.monotonic()


@dataclass(eq=False, kw_only=True)
class Actor:
    """An actor and its calls, in order."""

    handle: Any
    is_ready: bool = False
    calls: dict[Any, Call] = field(default_factory=dict[Any, Call])

    @property
    def first(self) -> Call | None:
        """The call that it works on."""
        return next(iter(self.calls.values()), None)


@dataclass(eq=False, kw_only=True)
class StartCall(Call):
    """An actor makes its worker."""

    counts_errors = False
    units: int | None = None
    actor: Actor = field(repr=False)
    starts: Starts = field(repr=False)
    remove: Callable[[Actor], None] = field(repr=False)

    def send(self, handle: Any) -> Any:
        """Return Ray's reference of the hash of the worker's code."""
        return handle.ready.remote()

    def done(self, result: str) -> None:
        """Have the actor get work."""
        self.starts.succeeded(result)
        self.actor.is_ready = True

    def raised(self, error: BaseException) -> None:
        """End the actor, whose worker could not be made."""
        self.remove(self.actor)
        self.starts.raised(error)

    def lost(self, loss: Loss, *, is_first: bool) -> None:
        """Count an actor that ended before it was ready."""
        self.starts.died(loss.error)


@dataclass(eq=False, kw_only=True)
class TaskCall(Call):
    """A worker does a task and commits it."""

    backlog: Backlog = field(repr=False)
    task: Task

    def send(self, handle: Any) -> Any:
        """Return Ray's reference of a TaskDone."""
        return handle.run.remote(self.task)

    def begun(self) -> None:
        """Note it for the queue too."""
        super().begun()
        self.backlog.queue.begun(self.task)

    def done(self, result: TaskDone) -> None:
        """Count the task."""
        self.backlog.task_done(self.task, result)

    def raised(self, error: BaseException) -> None:
        """Queue the task again."""
        self.backlog.queue.give_back(self.task)

    def lost(self, loss: Loss, *, is_first: bool) -> None:
        """Queue the task again, or isolate it if it ended the actor."""
        if is_first:
            self.backlog.task_ended_actor(self.task, is_hung=loss.is_hung)
        else:
            self.backlog.queue.give_back(self.task)


@dataclass(eq=False, kw_only=True)
class UnitCall(Call):
    """A worker scores one unit of an isolated task."""

    is_alone = True
    units: int | None = 1
    backlog: Backlog = field(repr=False)
    isolation: Isolation = field(repr=False)

    def send(self, handle: Any) -> Any:
        """Return Ray's reference of the unit's rows and its failure."""
        return handle.trace.remote(self.isolation.task, self.isolation.index)

    def done(self, result: tuple[Sequence[Row], Failure | None]) -> None:
        """Keep the unit's rows or failure, and continue with the next unit."""
        self.isolation.traced(*result)
        self.backlog.unit_over(self.isolation)

    def raised(self, error: BaseException) -> None:
        """Queue the unit again, behind other isolations."""
        self.backlog.isolations.append(self.isolation)

    def lost(self, loss: Loss, *, is_first: bool) -> None:
        """Count the death against the unit, or record a failure if it hung."""
        if loss.is_hung:
            self.isolation.timed_out(self.backlog.limits.unit_s)
        else:
            self.isolation.died(loss.error)
        self.backlog.unit_over(self.isolation)


@dataclass(eq=False, kw_only=True)
class PackCall(Call):
    """A worker packs a group of chunks."""

    counts_errors = False  # a group has tries of its own
    backlog: Backlog = field(repr=False)
    group: int

    def send(self, handle: Any) -> Any:
        """Return Ray's reference of the call, which returns None."""
        return handle.pack.remote(self.group)

    def done(self, result: None) -> None:
        """Count the pack."""
        self.backlog.groups.packed()

    def raised(self, error: BaseException) -> None:
        """Queue the group to be packed again, or its missing chunks to be done again."""
        self.backlog.pack_failed(self.group, error)

    def lost(self, loss: Loss, *, is_first: bool) -> None:
        """Queue the group to be packed again."""
        self.backlog.pack_failed(self.group, loss.error)


def next_call(backlog: Backlog, in_hand: Collection[Call]) -> Call | None:
    """Return the next call of an actor with the given calls; None if there is none for it."""
    isolation = None if in_hand else backlog.next_isolation()
    if isolation:
        return UnitCall(backlog=backlog, isolation=isolation)
    if any(call.is_alone for call in in_hand):
        return None
    group = backlog.groups.next()
    if group is not None:
        return PackCall(backlog=backlog, group=group, units=backlog.groups.num_units(group))
    task = backlog.queue.next(is_idle=not in_hand)
    if task is None:
        return None
    return TaskCall(backlog=backlog, task=task, units=len(backlog.run.ordinals(task.chunk)))
