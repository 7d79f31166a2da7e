"""The pool of Ray actors that works through a run's chunks.

Actors write results themselves and return counts, so the driver holds chunk numbers alone. A chunk
whose worker died is re-run unit by unit, each suspect on a throwaway actor: only a unit that kills
a process by itself is recorded as failed.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.store import Failure, Run
from jobs.worker import ChunkDone
from schemas.errors import ModelUnavailable

CALLS_IN_FLIGHT = 2
"""Calls queued on one actor: the next chunk is there when one ends."""


def drive(
    run: Run,
    worker_class: type,
    worker_options: Mapping[str, Any],
    *,
    actors: int,
    on_chunk: Callable[[ChunkDone], None],
) -> None:
    """Work through the chunks that `run` lacks with `actors` actors of `worker_class`.

    The class has `ready()`, `run(chunk) -> ChunkDone` and `trace(unit_rows) -> rows, failures`.
    An error of its constructor is raised here.
    """
    import ray

    todo = deque(sorted(set(range(run.num_chunks())) - run.done_chunks()))
    start = _starter(run, worker_class, worker_options)
    pool = _Pool(start=start, todo=todo, on_chunk=on_chunk)
    for _ in range(actors):
        pool.add_actor()
    while todo or pool.has_work():
        pool.feed()
        ready, _ = ray.wait(list(pool.in_flight), num_returns=1, timeout=1.0, fetch_local=False)
        for reference in ready:
            pool.take(reference)
    pool.close()
    for chunk in pool.suspects:
        if chunk not in run.done_chunks():
            on_chunk(_isolate(run, chunk, start))


@dataclass(kw_only=True)
class _Pool:
    """Actors with their calls in flight; an actor that dies is replaced.

    A restarting actor (`max_restarts`) fails every call at once (ray 2.60), which would drain the
    whole queue; a fresh one queues calls until it is ready.
    """

    start: Callable[[], Any]
    todo: deque[int]
    on_chunk: Callable[[ChunkDone], None]
    actors: list[Any] = field(default_factory=list[Any])
    """Those that have opened their models."""
    in_flight: dict[Any, tuple[Any, int | None]] = field(default_factory=dict[Any, Any])
    """Reference to actor and chunk, in order of submission; no chunk: the actor is starting."""
    suspects: list[int] = field(default_factory=list[int])
    """Chunks that ran while their actor died."""

    def add_actor(self) -> None:
        """Start an actor, which is fed once it is ready."""
        actor = self.start()
        self.in_flight[actor.ready.remote()] = (actor, None)

    def has_work(self) -> bool:
        """Return whether a chunk is in flight."""
        return any(chunk is not None for _, chunk in self.in_flight.values())

    def feed(self) -> None:
        """Fill every ready actor's window."""
        for actor in self.actors:
            load = sum(busy is actor for busy, _ in self.in_flight.values())
            for _ in range(min(len(self.todo), CALLS_IN_FLIGHT - load)):
                chunk = self.todo.popleft()
                self.in_flight[actor.run.remote(chunk)] = (actor, chunk)

    def take(self, reference: Any) -> None:
        """Take one finished call; replace its actor if it died."""
        import ray
        from ray.exceptions import RayActorError

        if reference not in self.in_flight:
            return
        actor, chunk = self.in_flight[reference]
        try:
            result: Any = ray.get(reference)
        except RayActorError as error:
            _raise_if_constructor(error)
            self._replace(actor)
            return
        del self.in_flight[reference]
        if chunk is None:
            self.actors.append(actor)
        else:
            self.on_chunk(result)

    def _replace(self, dead: Any) -> None:
        """Suspect the oldest call that the dead actor lost; queue again those behind it."""
        import ray
        from ray.exceptions import RayActorError

        lost: list[int] = []
        for reference, (actor, chunk) in list(self.in_flight.items()):
            if actor is not dead:
                continue
            del self.in_flight[reference]
            if chunk is None:
                continue
            try:
                result: Any = ray.get(reference)
                self.on_chunk(result)
            except RayActorError:
                lost.append(chunk)
        self.suspects += lost[:1]
        self.todo.extendleft(reversed(lost[1:]))
        self.actors = [actor for actor in self.actors if actor is not dead]
        self.add_actor()

    def close(self) -> None:
        """End all actors, which frees their GPUs for the isolation of suspects."""
        import ray

        for actor in [*self.actors, *(busy for busy, _ in self.in_flight.values())]:
            ray.kill(actor)


def _starter(run: Run, worker_class: type, worker_options: Mapping[str, Any]) -> Callable[[], Any]:
    """Return a function that starts one actor, on a GPU of its own where the cluster has any."""
    import ray

    has_gpu = ray.cluster_resources().get("GPU", 0) >= 1
    actor_class: Any = ray.remote(worker_class)
    actor_class = actor_class.options(
        num_cpus=1, num_gpus=1 if has_gpu else 0, max_restarts=0, max_task_retries=0
    )
    return lambda: actor_class.remote(str(run.path), **worker_options)


def _raise_if_constructor(error: BaseException) -> None:
    """Raise what a worker's constructor raised: Ray hands on its text alone."""
    text = str(error)
    if "creation task" not in text:
        return
    found = re.search(r"schemas\.errors\.\w+: (.+)", text)
    if found:
        raise ModelUnavailable(found[1].strip()) from None
    raise RuntimeError(f"a worker could not start: {text}") from error


def _isolate(run: Run, chunk: int, start: Callable[[], Any]) -> ChunkDone:
    """Trace a chunk's units one by one, replacing the actor that one kills, and commit it."""
    import ray
    from ray.exceptions import RayActorError

    rows: list[dict] = []
    failures: list[Failure] = []
    actor = None
    unit_rows = run.unit_rows(chunk)
    for unit_row in unit_rows:
        if actor is None:
            actor = _ready(start())
        try:
            unit_scores, unit_failures = ray.get(actor.trace.remote([unit_row]))
            rows += unit_scores
            failures += unit_failures
        except RayActorError as error:
            failures.append(_killed(unit_row["unit_id"], error))
            actor = None
    run.commit(chunk, rows, failures)
    if actor is not None:
        ray.kill(actor)
    return ChunkDone(units=len(unit_rows), failed=len(failures))


def _ready(actor: Any) -> Any:
    """Return the actor once it has opened its models; raise what its constructor raised."""
    import ray
    from ray.exceptions import RayActorError

    try:
        ray.get(actor.ready.remote())
    except RayActorError as error:
        _raise_if_constructor(error)
        raise RuntimeError(f"a worker died while it started: {error}") from error
    return actor


def _killed(unit_id: str, error: BaseException) -> Failure:
    return Failure(
        unit_id=unit_id,
        error="WorkerDied",
        message="the unit ended its worker's process when run alone",
        traceback=str(error),
    )
