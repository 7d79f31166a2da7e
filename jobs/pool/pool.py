"""The pool of Ray actors that works through a run's tasks.

Actors write results themselves and return counts, so the driver holds task numbers alone. A task
at which actors died twice, or that took too long, is isolated: its units run one at a time, and
only one that ends a process by itself is recorded as failed.
"""

# pyright: reportUnknownMemberType=false
# Ray leaves parts of some methods without types.

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from jobs.pool.actors import WorkerSpec, start_actor
from jobs.pool.backlog import Backlog
from jobs.pool.calls import Actor, Call, Loss, StartCall, next_call
from jobs.pool.limits import Limits
from jobs.pool.starts import Starts
from jobs.runs.run import Run, Task, TaskDone
from schemas.errors import first_line

logger = logging.getLogger(__name__)

CALLS_IN_FLIGHT = 2
"""Calls queued on one actor: the next task is there when one ends."""
RESIZE_S = 2.0
"""Seconds between questions to the cluster for how many actors it has room."""
RESULT_S = 5.0
"""Seconds that a dead actor's calls may take to raise its death."""


def run_tasks(
    run: Run[object],
    tasks: Iterable[Task],
    spec: WorkerSpec,
    *,
    limits: Limits,
    on_task: Callable[[TaskDone], None],
    on_turn: Callable[[], None] = lambda: None,
) -> None:
    """Work through `tasks` with actors of a `Worker` class, and pack the groups that are done.

    `on_turn` is called about once a second at least; what it raises ends the work.
    What the workers' constructors raise is raised here if no actor could start. TooManyFailures:
    so many units failed that something is wrong with all. StoreError: results cannot be written.
    """
    pool = _Pool(spec=spec, backlog=Backlog.of(run, tasks, limits=limits, on_task=on_task))
    try:
        while pool.backlog:
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

    spec: WorkerSpec
    backlog: Backlog
    starts: Starts = field(default_factory=Starts)
    actors: list[Actor] = field(default_factory=list[Actor])
    owners: dict[Any, Actor] = field(default_factory=dict[Any, Actor])
    """The actor of every call in flight."""
    with_room: set[Actor] = field(default_factory=set[Actor])
    """Ready actors with fewer calls than they may have."""
    errors_in_row: int = 0
    next_resize: float = 0.0

    def resize(self) -> None:
        """Start actors while the cluster has room; end unready ones beyond it."""
        now = time.monotonic()
        if now < self.next_resize:
            return
        self.next_resize = now + RESIZE_S
        target = max(1, min(self.spec.target(), len(self.backlog)))
        if now >= self.starts.next_s:
            for _ in range(target - len(self.actors)):
                self._start()
        for actor in [actor for actor in self.actors if not actor.is_ready]:
            if len(self.actors) > target and len(self.actors) > 1:
                self._remove(actor)

    def _start(self) -> None:
        actor = Actor(handle=start_actor(self.backlog.run, self.spec))
        self.actors.append(actor)
        self._send(actor, StartCall(actor=actor, starts=self.starts, remove=self._remove))

    def feed(self) -> None:
        """Give every ready actor its next calls."""
        for actor in list(self.with_room):
            while len(actor.calls) < CALLS_IN_FLIGHT:
                call = next_call(self.backlog, actor.calls.values())
                if call is None:
                    break
                self._send(actor, call)
            if len(actor.calls) == CALLS_IN_FLIGHT:
                self.with_room.discard(actor)
            elif not actor.calls:
                break  # there is nothing for any other idle actor either

    def _send(self, actor: Actor, call: Call) -> None:
        reference = call.send(actor.handle)
        actor.calls[reference] = call
        self.owners[reference] = actor
        self._note_first(actor)

    def _note_first(self, actor: Actor) -> None:
        """Note since when an actor works on its first call."""
        first = actor.first
        if first and first.since is None:
            first.begun()

    def wait(self) -> None:
        """Take the calls that are over, once there is one or a second has passed."""
        import ray

        pending = list(self.owners)
        if not pending:
            assert not self.with_room, "work is left that no idle actor was given"
            time.sleep(0.1)
            return
        if not ray.wait(pending, num_returns=1, timeout=1.0, fetch_local=False)[0]:
            return
        for reference in cast(
            "list[Any]",
            ray.wait(pending, num_returns=len(pending), timeout=0, fetch_local=False)[0],
        ):
            if reference in self.owners:
                self._take(self.owners[reference], reference)

    def _take(self, actor: Actor, reference: Any) -> None:
        """Take one call that is over; remove its actor if it died."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            result: Any = ray.get(reference)
        except RayTaskError as error:
            cause: BaseException = error.cause if isinstance(error.cause, BaseException) else error
            self._raised(self._drop(actor, reference), cause)
        except RayError as error:  # an actor's death has many: out of memory is not RayActorError
            self._replace_dead(actor, Loss(error=error, is_hung=False))
        else:
            self._done(self._drop(actor, reference), result)
        if actor.is_ready and actor in self.actors:
            self.with_room.add(actor)

    def _drop(self, actor: Actor, reference: Any) -> Call:
        del self.owners[reference]
        call = actor.calls.pop(reference)
        self._note_first(actor)
        return call

    def _done(self, call: Call, result: Any) -> None:
        self.errors_in_row = self.starts.failed = 0
        call.done(result)

    def _raised(self, call: Call, error: BaseException) -> None:
        """Give back the work of a call that raised; raise an error that no actor gets past."""
        logger.warning("a call raised %s: %s", type(error).__name__, first_line(error))
        call.raised(error)
        self.errors_in_row += call.counts_errors
        if self.errors_in_row > max(3, 2 * len(self.actors)):
            raise error

    def _replace_dead(self, actor: Actor, loss: Loss) -> None:
        """Remove an actor that died or is to end, and see to the calls that it lost."""
        import ray
        from ray.exceptions import RayError

        calls = dict(actor.calls)
        self._remove(actor)
        why = "took too long and was ended" if loss.is_hung else f"died: {first_line(loss.error)}"
        logger.warning("an actor %s; it had %s", why, list(calls.values()))
        is_first = True
        for reference, call in calls.items():
            try:
                result: Any = ray.get(reference, timeout=0 if loss.is_hung else RESULT_S)
            except RayError:
                call.lost(loss, is_first=is_first)
                is_first = False
            else:
                self._done(call, result)

    def end_hung(self) -> None:
        """End the actors whose call takes longer than its units may."""
        now = time.monotonic()
        for actor in list(self.actors):
            call = actor.first
            if call is None or call.units is None or call.since is None:
                continue
            if now - call.since > self.backlog.limits.unit_s * call.units:
                self._replace_dead(actor, Loss(error=TimeoutError("it hung"), is_hung=True))

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
