"""The pool of Ray actors that works through a run's tasks.

Actors write results themselves and return counts, so the driver holds task numbers alone. A task
at which actors died twice, or that took too long, is isolated: its units run one at a time, and
only one that ends a process by itself is recorded as failed.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from jobs.pool.actors import Actor, Call, WorkerSpec, raise_from_constructor, start_actor
from jobs.pool.isolation import Isolation
from jobs.pool.limits import Limits
from jobs.pool.packing import Groups
from jobs.pool.task_queue import TaskQueue
from jobs.runs.parts import CorruptPart
from jobs.runs.provenance import code_hash
from jobs.runs.run import Run, Task, TaskDone
from schemas.errors import ClusterUnavailable, TooManyFailures, first_line

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
RESULT_S = 5.0
"""How long a dead actor's calls may take to say so."""
MIN_FAILED = 20
"""Failed units below which a run is not stopped."""


def run_tasks(
    run: Run,
    tasks: Iterable[Task],
    staff: WorkerSpec,
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
    tasks = list(tasks)
    pool = _Pool(
        run=run, staff=staff, limits=limits, on_task=on_task, queue=TaskQueue(tasks),
        groups=Groups(run, tasks),
    )  # fmt: skip
    try:
        while pool.has_work:
            pool.resize()
            pool.feed()
            pool.wait()
            pool.end_hung()
            on_turn()
    finally:
        pool.close()


@dataclass(kw_only=True)
class _Pool:
    """Actors with their calls in flight; an actor that dies is replaced.

    A restarting actor (`max_restarts`) fails every call at once (ray 2.60), which would drain the
    whole queue; a fresh one queues calls until it is ready.
    """

    run: Run
    staff: WorkerSpec
    limits: Limits
    on_task: Callable[[TaskDone], None]
    queue: TaskQueue
    groups: Groups
    actors: list[Actor] = field(default_factory=list[Actor])
    owners: dict[Any, Actor] = field(default_factory=dict[Any, Actor])
    """The actor of every call in flight."""
    with_room: set[Actor] = field(default_factory=set[Actor])
    """Ready actors with fewer calls than they may have."""
    isolations: deque[Isolation] = field(default_factory=deque[Isolation])
    """Those that wait for an idle actor."""
    has_started: bool = False
    """Whether any actor ever was ready."""
    errors_in_row: int = 0
    failed_starts: int = 0
    """Times in a row that an actor could not start; those at one time are one."""
    next_resize: float = 0.0
    restart_at: float = 0.0
    units: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])
    """Errors of the units that failed, by name."""

    @property
    def has_work(self) -> bool:
        """Whether anything is left to do."""
        return self.queue.left > 0 or len(self.groups) > 0

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
        actor = Actor(handle=start_actor(self.run, self.staff))
        self.actors.append(actor)
        self._call(actor, actor.handle.ready.remote(), Call(work=None))

    def feed(self) -> None:
        """Give every ready actor its next calls."""
        for actor in list(self.with_room):
            while len(actor.calls) < CALLS_IN_FLIGHT and self._feed(actor):
                pass
            if len(actor.calls) == CALLS_IN_FLIGHT:
                self.with_room.discard(actor)
            elif not actor.calls:
                break  # what an idle actor is not given is not there for any other either

    def _feed(self, actor: Actor) -> bool:
        """Give an actor one more call; False if there is none for it."""
        if not actor.calls and self._isolate(actor):
            return False
        if any(isinstance(call.work, Isolation) for call in actor.calls.values()):
            return False
        group = self.groups.next()
        if group is not None:
            call = Call(work=group, units=self.groups.num_units(group))
            self._call(actor, actor.handle.pack.remote(group), call)
            return True
        task = self.queue.next(is_idle=not actor.calls)
        if task is None:
            return False
        call = Call(work=task, units=len(self.run.ordinals(task.chunk)))
        self._call(actor, actor.handle.run.remote(task), call)
        return True

    def _isolate(self, actor: Actor) -> bool:
        """Give an actor the next unit that is isolated; False if there is none."""
        while self.isolations:
            isolation = self.isolations.popleft()
            if not self.queue.is_done(isolation.task):  # by a copy that another actor had in hand
                reference = actor.handle.trace.remote(isolation.task, isolation.index)
                self._call(actor, reference, Call(work=isolation))
                return True
        return False

    def _call(self, actor: Actor, reference: Any, call: Call) -> None:
        actor.calls[reference] = call
        self.owners[reference] = actor
        self._note_head(actor)

    def _note_head(self, actor: Actor) -> None:
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
            assert not self.with_room, "work is left that no idle actor was given"
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
            self._replace_dead(actor, error)
        else:
            self._drop(actor, reference)
            self._finished(actor, call, result)

    def _drop(self, actor: Actor, reference: Any) -> None:
        del self.owners[reference], actor.calls[reference]
        self._note_head(actor)
        if actor.is_ready:
            self.with_room.add(actor)

    def _finished(self, actor: Actor, call: Call, result: Any) -> None:
        self.errors_in_row = self.failed_starts = 0
        work = call.work
        if work is None:
            self._admit(actor, result)
        elif isinstance(work, Task):
            self._task_done(work, result)
        elif isinstance(work, Isolation):
            work.traced(*result)
            self._go_on(work)
        else:
            self.groups.packed()

    def _admit(self, actor: Actor, worker_code: str) -> None:
        """Take an actor that is ready among those that get work."""
        if worker_code != code_hash():
            raise ClusterUnavailable(
                "a worker runs other code than this driver: install the same dqf on every node, "
                "or submit through http://HEAD:8265, which ships it"
            )
        self.has_started = True
        actor.is_ready = True
        self.with_room.add(actor)

    def _task_done(self, task: Task, done: TaskDone) -> None:
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
                f"they are recorded, the rest is left for `{self.run.resumed_by}`, and "
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
        self._task_done(isolation.task, TaskDone(units=units, errors=errors))

    def _raised(self, call: Call, error: Any) -> None:
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
        """Have a group packed again, or traced again what it lacks."""
        logger.warning("packing group %d: %s", group, first_line(error))
        is_damaged = isinstance(error, CorruptPart | FileNotFoundError)
        for task in self.groups.failed(group, is_damaged=is_damaged):
            self.queue.reopen(task)

    def _count_error(self, error: BaseException) -> None:
        """Raise an error that no actor gets past."""
        self.errors_in_row += 1
        logger.warning("a call raised %s: %s", type(error).__name__, first_line(error))
        if self.errors_in_row > max(3, 2 * len(self.actors)):
            raise error

    def _replace_dead(self, actor: Actor, error: Any, *, is_hung: bool = False) -> None:
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
        self.with_room.discard(actor)

    def _lost(self, call: Call, error: Any, *, is_head: bool, is_hung: bool) -> None:
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
            raise_from_constructor(error)
        now = time.monotonic()
        if now < self.restart_at:
            return  # of the same outage: actors start and end together
        self.failed_starts += 1
        if self.failed_starts > STARTS and is_constructors:
            raise_from_constructor(error)
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
                self._replace_dead(actor, None, is_hung=True)

    def _remove(self, actor: Actor) -> None:
        import ray

        ray.kill(actor.handle)
        self.actors.remove(actor)
        self.with_room.discard(actor)
        for reference in actor.calls:
            del self.owners[reference]
        self.next_resize = 0.0

    def close(self) -> None:
        """End all actors."""
        import ray

        for actor in self.actors:
            ray.kill(actor.handle)
