"""The pool of Ray actors that works through a run's tasks.

Actors write results themselves and return counts, so the driver holds task numbers alone. A task
at which actors died twice, or that took too long, is isolated: its units run one at a time, and
only one that ends a process by itself is recorded as failed.
"""

import logging
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.code import code_hash
from jobs.isolation import Isolation
from jobs.packs import group_chunks
from jobs.parts import GROUP_CHUNKS, CorruptPart
from jobs.queue import TaskQueue
from jobs.store import Run, Task
from jobs.worker import TaskDone
from schemas.errors import (
    ClusterUnavailable,
    ModelUnavailable,
    TooManyFailures,
    first_line,
)

logger = logging.getLogger(__name__)

CALLS_IN_FLIGHT = 2
"""Calls queued on one actor: the next task is there when one ends."""
LOSSES = 2
"""Actors that die at a task before it is isolated: a node may go for its own reasons."""
RESIZE_S = 2.0
"""How often the cluster is asked how many actors it has room for."""
RESTART_S = 10.0
"""How long no actor is started, at most, after one that could not start."""
STARTS = 6
"""Times in a row that no actor may start before the run is given up."""
PACK_TRIES = 3
"""How often a group is packed before its parts are left, which count as well as a pack."""
RESULT_S = 5.0
"""How long a dead actor's calls may take to say so."""
MIN_FAILED = 20
"""Failed units below which a run is not stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a unit, and a run, is given up."""

    unit_s: float = 3600.0
    """Seconds that a unit may take."""
    failed: float = 0.1
    """Share of the units done that may have failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staff:
    """What actors are made of, and how many there should be."""

    worker_class: type
    options: Mapping[str, Any]
    """Arguments of the class's constructor, besides the run's location."""
    gpus: float
    """GPUs that one actor takes."""
    target: Callable[[], int]
    """Returns the number of actors that the cluster has room for now."""


def drive(
    run: Run,
    tasks: Iterable[Task],
    staff: Staff,
    *,
    limits: Limits,
    on_task: Callable[[TaskDone], None],
    on_turn: Callable[[], None] = lambda: None,
) -> None:
    """Work through `tasks` with actors of a `Worker` class, and pack the groups that are done.

    `on_turn` is called about once a second at least; what it raises ends the work.
    The actors' constructor errors are raised here if no actor could start. TooManyFailures: so
    many units failed that something is wrong with all. StoreError: results cannot be written.
    """
    pool = _Pool(run=run, staff=staff, limits=limits, on_task=on_task, queue=TaskQueue(tasks))
    pool.find_whole_groups()
    try:
        while pool.has_work:
            pool.resize()
            pool.feed()
            pool.wait()
            pool.end_hung()
            on_turn()
    finally:
        pool.close()


@dataclass(slots=True, kw_only=True)
class _Call:
    """One call of an actor's method."""

    work: "Task | Isolation | int | None"
    """A task, the unit of an isolation, the number of a group to pack; None: the actor starts."""
    units: int = 1
    since: float | None = None
    """When the actor began with it."""


@dataclass(eq=False, kw_only=True)
class _Actor:
    """An actor and its calls, in order."""

    handle: Any
    is_ready: bool = False
    calls: dict[Any, _Call] = field(default_factory=dict[Any, _Call])


@dataclass(kw_only=True)
class _Pool:
    """Actors with their calls in flight; an actor that dies is replaced.

    A restarting actor (`max_restarts`) fails every call at once (ray 2.60), which would drain the
    whole queue; a fresh one queues calls until it is ready.
    """

    run: Run
    staff: Staff
    limits: Limits
    on_task: Callable[[TaskDone], None]
    queue: TaskQueue
    actors: list[_Actor] = field(default_factory=list[_Actor])
    owners: dict[Any, _Actor] = field(default_factory=dict[Any, _Actor])
    """The actor of every call in flight."""
    hungry: set[_Actor] = field(default_factory=set[_Actor])
    """Ready actors with fewer calls than they may have."""
    isolations: deque[Isolation] = field(default_factory=deque[Isolation])
    """Those that wait for an idle actor."""
    groups: deque[int] = field(default_factory=deque[int])
    """Groups of chunks to pack."""
    missing: Counter[int] = field(default_factory=Counter[int])
    """Chunks that each group lacks."""
    has_started: bool = False
    """Whether any actor ever was ready."""
    errors_in_row: int = 0
    failed_starts: int = 0
    """Times in a row that an actor could not start; those at one time are one."""
    next_resize: float = 0.0
    restart_at: float = 0.0
    packing: int = 0
    """Groups that are being packed."""
    pack_losses: Counter[int] = field(default_factory=Counter[int])
    units: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])
    """Errors of the units that failed, by name."""

    @property
    def has_work(self) -> bool:
        """Whether anything is left to do."""
        return self.queue.left > 0 or bool(self.groups) or self.packing > 0

    def find_whole_groups(self) -> None:
        """Count what each group lacks, and queue those that lack nothing for packing."""
        live = self.run.live()
        for group in range(-(-self.run.num_chunks // GROUP_CHUNKS)):
            if group not in live.packs:
                chunks = group_chunks(self.run, group)
                self.missing[group] = sum((chunk, 0) not in live.parts for chunk in chunks)
                if not self.missing[group]:
                    self.groups.append(group)

    def resize(self) -> None:
        """Start the actors that the cluster has room for; end unready ones that it has not."""
        now = time.monotonic()
        if now < self.next_resize:
            return
        self.next_resize = now + RESIZE_S
        target = max(1, min(self.staff.target(), self.queue.left + len(self.groups)))
        if now >= self.restart_at:
            for _ in range(target - len(self.actors)):
                self._start()
        for actor in [actor for actor in self.actors if not actor.is_ready]:
            if len(self.actors) > target and len(self.actors) > 1:
                self._remove(actor)

    def _start(self) -> None:
        import ray

        actor_class: Any = ray.remote(self.staff.worker_class).options(
            num_cpus=1, num_gpus=self.staff.gpus, max_restarts=0, max_task_retries=0,
            enable_task_events=False,
        )  # fmt: skip
        actor = _Actor(handle=actor_class.remote(self.run.location, **self.staff.options))
        self.actors.append(actor)
        self._call(actor, actor.handle.ready.remote(), _Call(work=None))

    def feed(self) -> None:
        """Give every ready actor its next calls."""
        for actor in list(self.hungry):
            while len(actor.calls) < CALLS_IN_FLIGHT and self._feed(actor):
                pass
            if len(actor.calls) == CALLS_IN_FLIGHT:
                self.hungry.discard(actor)
            elif not actor.calls:
                break  # what an idle actor is not given is not there for any other either

    def _feed(self, actor: _Actor) -> bool:
        """Give an actor one more call; False if there is none for it."""
        if not actor.calls and self._isolate(actor):
            return False
        if any(isinstance(call.work, Isolation) for call in actor.calls.values()):
            return False
        if self.groups:
            group = self.groups.popleft()
            self.packing += 1
            units = len(group_chunks(self.run, group)) * self.run.plan.chunk_units
            self._call(actor, actor.handle.pack.remote(group), _Call(work=group, units=units))
            return True
        task = self.queue.next(is_idle=not actor.calls)
        if task is None:
            return False
        call = _Call(work=task, units=len(self.run.ordinals(task.chunk)))
        self._call(actor, actor.handle.run.remote(task), call)
        return True

    def _isolate(self, actor: _Actor) -> bool:
        """Give an actor the next unit that is isolated; False if there is none."""
        while self.isolations:
            isolation = self.isolations.popleft()
            if not self.queue.is_done(isolation.task):  # by a copy that another actor had in hand
                reference = actor.handle.trace.remote(isolation.task, isolation.index)
                self._call(actor, reference, _Call(work=isolation))
                return True
        return False

    def _call(self, actor: _Actor, reference: Any, call: _Call) -> None:
        actor.calls[reference] = call
        self.owners[reference] = actor
        self._note_head(actor)

    def _note_head(self, actor: _Actor) -> None:
        """Note since when an actor works on its first call."""
        head = next(iter(actor.calls.values()), None)
        if head and head.since is None:
            head.since = time.monotonic()
            if isinstance(head.work, Task):
                self.queue.begun(head.work)

    def wait(self) -> None:
        """Take the calls that are over, once there is one or a second has passed."""
        import ray

        pending = list(self.owners)
        if not pending:
            time.sleep(0.1)
            return
        ready, _ = ray.wait(pending, num_returns=1, timeout=1.0, fetch_local=False)
        if ready:
            ready, _ = ray.wait(pending, num_returns=len(pending), timeout=0, fetch_local=False)
        for reference in ready:
            self._take(reference)

    def _take(self, reference: Any) -> None:
        """Take one call that is over; remove its actor if it died."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        actor = self.owners.get(reference)
        if actor is None:
            return
        call = actor.calls[reference]
        try:
            result: Any = ray.get(reference)
        except RayTaskError as error:
            self._drop(actor, reference)
            self._raised(call, error)
        except RayError as error:  # an actor's death has many: out of memory is no RayActorError
            self._bury(actor, error)
        else:
            self._drop(actor, reference)
            self._finished(actor, call, result)

    def _drop(self, actor: _Actor, reference: Any) -> None:
        del self.owners[reference], actor.calls[reference]
        self._note_head(actor)
        if actor.is_ready:
            self.hungry.add(actor)

    def _finished(self, actor: _Actor, call: _Call, result: Any) -> None:
        self.errors_in_row = self.failed_starts = 0
        work = call.work
        if work is None:
            self._welcome(actor, result)
        elif isinstance(work, Task):
            self._task_done(work, result)
        elif isinstance(work, Isolation):
            work.traced(*result)
            self._go_on(work)
        else:
            self.packing -= 1

    def _welcome(self, actor: _Actor, worker_code: str) -> None:
        """Take an actor that is ready among those that get work."""
        if worker_code != code_hash():
            raise ClusterUnavailable(
                "a worker runs other code than this driver: install the same dqf on every node, "
                "or submit through http://HEAD:8265, which ships it"
            )
        self.has_started = True
        actor.is_ready = True
        self.hungry.add(actor)

    def _task_done(self, task: Task, done: TaskDone) -> None:
        if not self.queue.finish(task, done.seconds):
            return
        self.on_task(done)
        self.units += done.units
        self.errors.update(done.errors)
        self._stop_if_too_many_failed()
        group = task.chunk // GROUP_CHUNKS
        if task.generation == 0 and group in self.missing:
            self.missing[group] -= 1
            if not self.missing[group]:
                self.groups.append(group)

    def _stop_if_too_many_failed(self) -> None:
        failed = self.errors.total()
        if failed >= MIN_FAILED and failed > self.limits.failed * self.units:
            name, count = self.errors.most_common(1)[0]
            raise TooManyFailures(
                f"stopped: {failed} of {self.units} units failed, {count} of them with {name}; "
                "they are recorded in `failures`, the rest is left for `dqf trace resume`, and "
                "--max-failed 1 goes on whatever fails"
            )

    def _go_on(self, isolation: Isolation) -> None:
        """Queue an isolation's next unit, or commit it at its end."""
        if not isolation.is_over:
            self.isolations.appendleft(isolation)
            return
        units = len(isolation.unit_ids)
        failures = isolation.failures
        self.run.commit(isolation.task, isolation.rows, failures, units=units)
        errors = tuple(failure.error for failure in failures)
        self._task_done(isolation.task, TaskDone(units=units, failed=len(failures), errors=errors))

    def _raised(self, call: _Call, error: Any) -> None:
        """Give work back whose call raised: something else is wrong than a unit."""
        cause: BaseException = error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(call.work, int):
            self._pack_failed(call.work, cause)
            return
        self._count_error(cause)
        if isinstance(call.work, Task):
            self.queue.give_back(call.work)
        elif isinstance(call.work, Isolation):
            self.isolations.append(call.work)

    def _pack_failed(self, group: int, error: BaseException) -> None:
        """Try to pack a group again, a few times; trace again what it lacks."""
        self.packing -= 1
        self.pack_losses[group] += 1
        logger.warning("packing group %d: %s", group, first_line(error))
        # A part may be gone because another driver found it damaged, or packed the group.
        if isinstance(error, CorruptPart | FileNotFoundError) and self._reopen(group):
            return
        if self.pack_losses[group] < PACK_TRIES:
            self.groups.append(group)

    def _reopen(self, group: int) -> bool:
        """Queue the chunks of a group again that are gone; False if none is."""
        live = self.run.live()
        gone = [chunk for chunk in group_chunks(self.run, group) if not live.has(chunk)]
        self.missing[group] = len(gone)
        for chunk in gone:
            self.queue.reopen(Task(chunk=chunk))
        return bool(gone)

    def _count_error(self, error: BaseException) -> None:
        """Raise an error that no actor gets past."""
        self.errors_in_row += 1
        logger.warning("a call raised %s: %s", type(error).__name__, first_line(error))
        if self.errors_in_row > max(3, 2 * len(self.actors)):
            raise error

    def _bury(self, actor: _Actor, error: Any, *, is_hung: bool = False) -> None:
        """Remove an actor that died, and see to the calls that it lost."""
        import ray
        from ray.exceptions import RayError

        calls = dict(actor.calls)
        self._remove(actor)
        why = "took too long and was ended" if is_hung else f"died: {first_line(error)}"
        logger.warning("an actor %s; it had %s", why, [call.work for call in calls.values()])
        is_head = True
        for reference, call in calls.items():
            try:
                result: Any = ray.get(reference, timeout=0 if is_hung else RESULT_S)
            except RayError:
                self._lost(call, error, is_head=is_head, is_hung=is_hung)
                is_head = False
            else:
                self._finished(actor, call, result)
        self.hungry.discard(actor)

    def _lost(self, call: _Call, error: Any, *, is_head: bool, is_hung: bool) -> None:
        """See to a call that was lost; only the one that was running is to blame."""
        work = call.work
        if work is None:
            self._could_not_start(error)
        elif isinstance(work, Isolation):
            if is_hung:
                work.timed_out(self.limits.unit_s)
            else:
                work.died(error)
            self._go_on(work)
        elif isinstance(work, Task):
            is_suspect = is_head and (is_hung or self.queue.lose(work) >= LOSSES)
            if is_suspect and self.queue.isolate(work):
                logger.warning("%s is isolated: its units run one at a time", work)
                self.isolations.append(Isolation.of(self.run, work))
            else:
                self.queue.give_back(work)
        else:
            self._pack_failed(work, error or TimeoutError())

    def _could_not_start(self, error: Any) -> None:
        """Raise what an actor's constructor raised, or start another one later."""
        is_constructors = getattr(error, "actor_init_failed", False)
        if is_constructors and not self.has_started:
            _raise_from_constructor(error)
        now = time.monotonic()
        if now < self.restart_at:
            return  # of the same outage: actors start and end together
        self.failed_starts += 1
        if self.failed_starts > STARTS and is_constructors:
            _raise_from_constructor(error)
        if self.failed_starts > STARTS:
            raise ClusterUnavailable(f"workers end while they start: {first_line(error)}")
        self.restart_at = now + min(RESTART_S, 2.0 ** (self.failed_starts - 1))

    def end_hung(self) -> None:
        """End the actors whose call takes longer than its units may."""
        now = time.monotonic()
        for actor in list(self.actors):
            head = next(iter(actor.calls.values()), None)
            if head is None or head.work is None or head.since is None:
                continue
            if now - head.since > self.limits.unit_s * head.units:
                self._bury(actor, None, is_hung=True)

    def _remove(self, actor: _Actor) -> None:
        import ray

        ray.kill(actor.handle)
        self.actors.remove(actor)
        self.hungry.discard(actor)
        for reference in actor.calls:
            del self.owners[reference]
        self.next_resize = 0.0

    def close(self) -> None:
        """End all actors."""
        import ray

        for actor in self.actors:
            ray.kill(actor.handle)


def _raise_from_constructor(error: BaseException) -> None:
    """Raise what a worker's constructor raised: Ray hands on its text alone."""
    text = str(error)
    found = re.search(r"schemas\.errors\.\w+: (.+)", text)
    if found:
        raise ModelUnavailable(found[1].strip()) from None
    raise RuntimeError(f"a worker could not start: {text}") from error
