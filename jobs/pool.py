"""The pool of Ray actors that works through a run's chunks: the only file that imports ray.

Actors write results themselves and return counts, so the driver holds chunk numbers alone. A chunk
whose worker died is re-run unit by unit, each suspect on a throwaway actor: only a unit that kills
a process by itself is recorded as failed.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jobs.store import Failure, Run
from jobs.worker import ChunkDone

CALLS_IN_FLIGHT = 2
"""Calls queued on one actor: the next chunk is there when one ends."""
OBJECT_STORE_BYTES = 200 * 2**20
"""Results never pass through the object store."""

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where actors run, and how many."""

    address: str | None = None
    """A Ray address; None starts a local Ray on the loopback interface."""
    actors: int | None = None
    """None: one a GPU, else one a core up to four (`threads` of each share the cores)."""


@contextmanager
def connected(cluster: Cluster, *, num_chunks: int) -> Iterator[int]:
    """Connect to Ray and yield the number of actors to start; disconnect at exit."""
    if cluster.address is None:
        # Undocumented use of the flag (ray 2.60): makes every listener bind to 127.0.0.1.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    wanted = cluster.actors or _default_actors()
    if cluster.address is None:
        # One CPU more than actors, for the throwaway actor that isolates a suspect.
        options |= {"address": "local", "num_cpus": wanted + 1, "include_dashboard": False}
        options |= {"object_store_memory": OBJECT_STORE_BYTES}
    else:
        options |= {"address": cluster.address}
    ray.init(**options)
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        yield min(num_chunks, cluster.actors or gpus or wanted)
    finally:
        ray.shutdown()


def _default_actors() -> int:
    return min(4, len(os.sched_getaffinity(0)))


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
    from ray.exceptions import RayActorError

    todo = deque(sorted(set(range(run.num_chunks())) - run.done_chunks()))
    actor_class = ray.remote(worker_class)
    pool = [_start(actor_class, run, worker_options, max_restarts=-1) for _ in range(actors)]
    _wait_until_ready(pool)
    in_flight: dict[Any, tuple[Any, int]] = {}
    suspects: list[int] = []
    while todo or in_flight:
        for actor in pool:
            load = sum(busy is actor for busy, _ in in_flight.values())
            for _ in range(min(len(todo), CALLS_IN_FLIGHT - load)):
                chunk = todo.popleft()
                in_flight[actor.run.remote(chunk)] = (actor, chunk)
        ready, _ = ray.wait(list(in_flight), num_returns=1, timeout=1.0, fetch_local=False)
        for reference in ready:
            _, chunk = in_flight.pop(reference)
            try:
                on_chunk(ray.get(reference))
            except RayActorError:
                suspects.append(chunk)
    for chunk in suspects:
        if chunk not in run.done_chunks():
            on_chunk(_isolate(run, chunk, actor_class, worker_options))


def _start(
    actor_class: Any,
    run: Run,
    worker_options: Mapping[str, Any],
    *,
    max_restarts: int,
) -> Any:
    import ray

    has_gpu = ray.cluster_resources().get("GPU", 0) >= 1
    remote = actor_class.options(
        num_cpus=1, num_gpus=1 if has_gpu else 0, max_restarts=max_restarts, max_task_retries=0
    )
    return remote.remote(str(run.path), **worker_options)


def _wait_until_ready(pool: list[Any]) -> None:
    """Return when every actor has opened its models; raise what a constructor raised."""
    import ray
    from ray.exceptions import ActorDiedError, RayTaskError

    try:
        ray.get([actor.ready.remote() for actor in pool])
    except (ActorDiedError, RayTaskError) as error:
        raise RuntimeError(f"a worker could not start: {error}") from error


def _isolate(
    run: Run,
    chunk: int,
    actor_class: Any,
    worker_options: Mapping[str, Any],
) -> ChunkDone:
    """Trace a chunk's units one by one, replacing the actor that one kills, and commit it."""
    import ray
    from ray.exceptions import RayActorError

    rows: list[dict] = []
    failures: list[Failure] = []
    actor = None
    unit_rows = run.unit_rows(chunk)
    for unit_row in unit_rows:
        if actor is None:
            actor = _start(actor_class, run, worker_options, max_restarts=0)
            _wait_until_ready([actor])
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


def _killed(unit_id: str, error: BaseException) -> Failure:
    return Failure(
        unit_id=unit_id,
        error="WorkerDied",
        message="the unit ended its worker's process when run alone",
        traceback=str(error),
    )
