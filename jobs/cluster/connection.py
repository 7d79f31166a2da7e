"""Connecting to Ray: a local one on the loopback interface, or a cluster with its token."""

# pyright: reportUnknownMemberType=false
# Ray leaves parts of some methods without types.

import atexit
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Annotated, Any, cast

from pydantic import Field

from engine.files import is_file
from jobs.cluster.processes import end_orphans, mark_descendants
from jobs.cluster.token import TOKEN_HELP, check_token, protect_token
from schemas.documents import parsed
from schemas.errors import ClusterUnavailable, first_line
from schemas.printable import shown

OBJECT_STORE_BYTES = 200 * 2**20
"""Size of the object store, which results never pass through."""
TRIES = 3
"""Tries of Ray to join a cluster that has answered, of six seconds each; Ray itself makes 20."""
JOIN_S = 30
"""Seconds that joining a cluster that answers may take; Ray ends the process when some more are
over."""
MOST_LOCAL = 64
"""Actors of a local Ray, where the machine has fewer CPUs: Ray starts a process for each."""
LONGEST_TMPDIR = 107 - len(
    f"/ray/session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
)
"""Bytes of the path below which a local Ray makes its sockets (ray 2.60)."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
VALUES: dict[str, Any] = {
    "address": Annotated[str, Field(min_length=1)],
    "actors": Annotated[int, Field(strict=True, ge=1)],
    "gpus_an_actor": Annotated[float, Field(strict=True, ge=0, le=1024)],
}
"""The values that a cluster's fields may have besides None."""

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The place and number of actors."""

    address: str | None = None
    """A Ray address; None starts a local Ray on the loopback interface."""
    actors: int | None = None
    """None: one per GPU, else one per CPU as nodes come and go; at most four on a local Ray."""
    gpus_an_actor: float | None = None
    """GPUs that an actor takes; None: one if the cluster has any, else none."""

    def __post_init__(self) -> None:
        """Raise ClusterUnavailable for a value that is none, for more actors or GPUs than this
        machine has for a local Ray, or for a folder whose path is too long for its sockets.

        A run is made later: what is refused here leaves none.
        """
        for name, kind in VALUES.items():
            if (value := getattr(self, name)) is not None:
                parsed(kind, value, f"Cluster: {name}", error=ClusterUnavailable)
        if self.address is not None:
            return
        most = max(MOST_LOCAL, len(os.sched_getaffinity(0)))
        if (self.actors or 0) > most:
            raise ClusterUnavailable(f"this machine can have {most} actors, not {self.actors}")
        if self.gpus_an_actor:
            _check_gpus(self.gpus_an_actor)
        _check_sockets()


def _check_gpus(an_actor: float) -> None:
    """Raise ClusterUnavailable if this machine has fewer GPUs than one actor takes."""
    import torch

    if torch.cuda.device_count() < an_actor:
        raise ClusterUnavailable(
            f"this machine has {torch.cuda.device_count()} GPUs, but each actor takes "
            f"{an_actor:g}: leave --gpus and --device out"
        )


def _check_sockets() -> None:
    """Raise ClusterUnavailable if the paths of a local Ray's sockets would be too long."""
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    if name is not None and len(os.fsencode(os.environ[name])) > LONGEST_TMPDIR:
        raise ClusterUnavailable(
            f"a local Ray cannot start: {name} has more than {LONGEST_TMPDIR} bytes, and its "
            f"sockets' paths would be too long: let RAY_TMPDIR name a folder of a short path"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The number of actors that the connected cluster has room for."""

    actors: Callable[[], int]
    """Returns the number of actors to have now: nodes come and go."""
    gpus_an_actor: float


@contextmanager
def connected(cluster: Cluster) -> Generator[Capacity]:
    """Connect to Ray and yield its capacity; disconnect at exit.

    ClusterUnavailable: the cluster refuses the token, runs another version of Ray, falls silent, or
    has no GPU although actors are to take some.
    """
    if not isinstance(cluster, Cluster):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ClusterUnavailable(f"give dqf.Cluster(...), not {shown(cluster)}")
    prepare_environment(cluster.address)
    import ray

    if cluster.address is None:
        _start_local(cluster.actors or _default_actors())
    else:
        join(cluster.address)
    session = None if cluster.address else _session_folder()
    try:
        yield _capacity(cluster)
    finally:
        ray.shutdown()
        if session is not None:
            shutil.rmtree(session, ignore_errors=True)


def join_once(address: str, seconds: int) -> None:
    """Join a cluster, leave it, and end this process: with an error, or killed after `seconds`."""
    prepare_environment(address)
    import ray

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    code = 0
    try:
        join(address, seconds=2 * seconds)
        ray.shutdown()
    except ClusterUnavailable as error:
        sys.stdout.write(str(error))
        sys.stdout.flush()
        code = 2
    os._exit(code)


def _options() -> dict[str, Any]:
    """Return the options of every `ray.init`."""
    # Ray puts the driver's folder first on a worker's path, whatever files of the user's it holds.
    hook = {"worker_process_setup_hook": "dqf.packages.load_own"}
    return {"log_to_driver": False, "logging_level": logging.ERROR, "runtime_env": hook}


def join(address: str, *, seconds: float = JOIN_S) -> None:
    """Join a cluster.

    ClusterUnavailable: it refuses the token, runs another version of Ray, or takes more than
    `seconds`. Ray then still waits for it, in a thread that ends with the process.
    """
    import ray
    from ray.exceptions import AuthenticationError

    future = Future[None]()

    def work() -> None:
        try:
            ray.init(address=address, **_options())
            future.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            future.set_exception(error)

    # No exception reaches a thread that waits in Ray's own code.
    Thread(target=work, daemon=True).start()
    try:
        future.result(seconds)
    except (AuthenticationError, ConnectionError, RuntimeError) as error:
        raise ClusterUnavailable(
            f"cannot join the Ray cluster at {address}: {first_line(error)}; if it uses one, "
            f"{TOKEN_HELP}"
        ) from error
    except TimeoutError as error:
        atexit.unregister(cast("Callable[[], None]", ray.shutdown))  # it would wait for the thread
        raise fell_silent(address, seconds) from error


def fell_silent(address: str, seconds: float) -> ClusterUnavailable:
    """Return the error of a cluster that cannot be joined within `seconds`."""
    return ClusterUnavailable(
        f"the Ray cluster at {address} answers, but joining it took more than {seconds:g} "
        "seconds: it hangs, which `ray status` on its head shows, or it or this machine is busy"
    )


def _start_local(cpus: int) -> None:
    """Start a local Ray; ClusterUnavailable: it does not start in time."""
    import ray

    end_orphans()
    protect_token()
    try:
        with mark_descendants():
            # Workers that Ray starts ahead have no hook, and none of our actors could be one
            # (ray 2.60).
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _system_config={"prestart_worker_first_driver": False},
                **_options(),
            )
    except OSError as error:
        raise ClusterUnavailable(
            f"a local Ray cannot start: {first_line(error)}; let RAY_TMPDIR name a folder of a "
            "short path that can be written"
        ) from error
    except Exception as error:
        if "timed out during startup" not in str(error):  # Ray raises no class of its own
            raise
        raise ClusterUnavailable(
            "a local Ray did not start within 30 seconds, as the machine is busy: the same command "
            "tries again"
        ) from error


def _session_folder() -> Path | None:
    """Return where a local Ray keeps its logs and sockets, which it leaves behind (ray 2.60)."""
    from ray._private.worker import global_worker

    node = global_worker.node
    return None if node is None else Path(node.get_session_dir_path())


def _capacity(cluster: Cluster) -> Capacity:
    """Return the room for actors: one per GPU, or per CPU where actors take no GPU."""
    gpus = cluster.gpus_an_actor
    if gpus is None:
        gpus = 1.0 if _resources().get("GPU", 0) >= 1 else 0.0
        if cluster.address and not gpus:
            raise ClusterUnavailable(
                f"the cluster at {cluster.address} has no GPU now: give --device cuda "
                "--actors N to have its autoscaler start nodes with some, or --device cpu"
            )

    def actors() -> int:
        resources = _resources()
        return int(resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 0))

    if cluster.actors is None and actors() < 1:
        raise ClusterUnavailable(
            f"the cluster at {cluster.address} has no {'GPU' if gpus else 'CPU'} for an actor now: "
            "give --actors N to have its autoscaler start nodes for so many"
        )
    fixed = cluster.actors
    return Capacity(actors=(lambda: fixed) if fixed else actors, gpus_an_actor=gpus)


def _resources() -> Mapping[str, float]:
    """Return the sums of all nodes' resources, by the resource's name."""
    import ray

    return cast("Mapping[str, float]", ray.cluster_resources())


def prepare_environment(address: str | None) -> None:
    """Set the variables that Ray reads when it is imported: for a cluster, or by default a local
    Ray.

    No proxy is asked for this machine's own addresses: it could not reach them.
    ClusterUnavailable: Ray cannot send the token that the environment names.
    """
    check_token()
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if direct != "*":
        # Ray's gRPC and requests both prefer the name in small letters.
        os.environ["no_proxy"] = ",".join(
            dict.fromkeys((*filter(None, direct.split(",")), *LOOPBACK))
        )
    if address is None:
        # Undocumented use of the flag (ray 2.60): makes every listener bind to 127.0.0.1.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        return
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", str(TRIES))
    named = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if named or is_file(os.path.expanduser("~/.ray/auth_token")):
        _send_token()


def _send_token() -> None:
    """Have Ray send its token also to a cluster that was not started from here (ray 2.60).

    A Ray that is imported has read the mode already. It would send none, to the cluster or to a
    local Ray of the same process later, whose servers read the environment.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    if "ray" in sys.modules:
        from ray._raylet import Config  # pyright: ignore

        Config.initialize("")


def _default_actors() -> int:
    return min(4, len(os.sched_getaffinity(0)))
