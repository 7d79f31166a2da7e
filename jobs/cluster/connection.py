"""Connecting to Ray: a local one on the loopback interface, or a cluster with its token."""

# pyright: reportUnknownMemberType=false
# Ray leaves parts of some methods without types.

import logging
import os
import shutil
import socket
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from engine.files import is_file
from jobs.cluster.processes import end_orphans, mark_descendants
from jobs.cluster.token import protect_token
from schemas.errors import ClusterUnavailable, first_line

OBJECT_STORE_BYTES = 200 * 2**20
"""Size of the object store, which results never pass through."""
ANSWER_S = 5.0
"""Seconds within which a cluster has to accept a connection and to begin its answer; Ray itself
tries for many minutes."""
TRIES = 3
"""Tries of Ray to join a cluster that has answered, of six seconds each; Ray itself makes 20."""
SETTINGS = 4
"""Type of the HTTP/2 frame that a server sends first (RFC 9113, section 3.4); its fourth byte."""
MOST_LOCAL = 64
"""Actors of a local Ray, where the machine has fewer CPUs: Ray starts a process for each."""
PING = b"\x08\x06"
"""Ray's ClusterInfoRequest of type PING, its client's first question to a server of `ray://`."""
QUESTIONS = {
    True: ("/ray.rpc.RayletDriver/ClusterInfo", PING),
    False: ("/ray.rpc.NodeInfoGcsService/GetClusterId", b""),
}
"""A question that every server of Ray (2.60) answers, by whether it is one of `ray://`."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
TOKEN_HELP = "put the cluster's token into RAY_AUTH_TOKEN or ~/.ray/auth_token"

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
        """Raise ClusterUnavailable for more actors or GPUs than this machine has for a local Ray.

        A run is made later: what is refused here leaves none.
        """
        if self.address is not None:
            return
        most = max(MOST_LOCAL, len(os.sched_getaffinity(0)))
        if (self.actors or 0) > most:
            raise ClusterUnavailable(f"this machine can have {most} actors, not {self.actors}")
        if self.gpus_an_actor:
            _check_gpus(self.gpus_an_actor)


def _check_gpus(an_actor: float) -> None:
    """Raise ClusterUnavailable if this machine has fewer GPUs than one actor takes."""
    import torch

    if torch.cuda.device_count() < an_actor:
        raise ClusterUnavailable(
            f"this machine has {torch.cuda.device_count()} GPUs, but each actor takes "
            f"{an_actor:g}: leave --gpus and --device out"
        )


def check_address(address: str) -> None:
    """Raise ClusterUnavailable if no server of Ray answers at HOST:PORT within seconds.

    Ray itself would ask a silent one, or one of another program, for ever.
    """
    if address == "auto":
        return check_address(_found_here())
    target = address.removeprefix("ray://")
    host, colon, port = target.rpartition(":")
    if not (host and colon and port.isdecimal()) or "://" in host:
        raise ClusterUnavailable(f"address {address!r} is not HOST:PORT, such as 10.0.0.5:6379")
    try:
        there = (host.removeprefix("[").removesuffix("]"), int(port))
        with socket.create_connection(there, timeout=ANSWER_S) as connection:
            answer = _first_words(connection)
    except (OSError, OverflowError, UnicodeError) as error:  # a host's name may be too long
        raise ClusterUnavailable(
            f"no Ray cluster answers at {address}: {error}; start one, or leave --address out"
        ) from error
    if answer.startswith(b"HTTP/1"):
        raise ClusterUnavailable(
            f"a dashboard answers at {address}: give http://{address} to submit a job there, or "
            "the port of the cluster itself, 6379 if none was chosen"
        )
    is_open = os.environ.get("RAY_USE_TLS", "0") == "0"  # else Ray alone has the certificates
    if is_open and not (
        answer[3:4] == bytes([SETTINGS]) and _answers(target, *QUESTIONS[target != address])
    ):
        raise ClusterUnavailable(
            f"the program at {address} does not answer as a Ray cluster does: give the port of "
            "the cluster itself, 6379 if none was chosen (10001 after ray://), or http:// and "
            "that of its dashboard"
        )


def _found_here() -> str:
    """Return the address of the cluster that Ray finds on this machine; ClusterUnavailable: none.

    It names the last one that was started, also when that has ended.
    """
    prepare_environment("auto")
    from ray._private.services import get_ray_address_from_environment

    try:
        found: str = cast(Any, get_ray_address_from_environment)("auto", None)
    except ConnectionError as error:
        raise ClusterUnavailable(
            "no Ray cluster runs on this machine: start one, or give its HOST:PORT"
        ) from error
    return found


def _first_words(connection: socket.socket) -> bytes:
    """Return the beginning of a server's answer to an HTTP/1 request; empty if it gives none."""
    try:
        connection.sendall(b"GET /api/version HTTP/1.0\r\n\r\n")
        return connection.recv(9)
    except OSError:  # silence, or the connection is closed
        return b""


def _answers(target: str, method: str, question: bytes) -> bool:
    """Return whether a server knows a method of Ray's; it gets no token, and may say so."""
    import grpc

    codes = grpc.StatusCode
    none_of_rays = {codes.UNIMPLEMENTED, codes.UNAVAILABLE, codes.DEADLINE_EXCEEDED}
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(method)(question, timeout=ANSWER_S)
        except grpc.RpcError as error:
            return cast("grpc.Call", error).code() not in none_of_rays
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The number of actors that the connected cluster has room for."""

    actors: Callable[[], int]
    """Returns the number of actors to have now: nodes come and go."""
    gpus_an_actor: float


@contextmanager
def connected(cluster: Cluster) -> Generator[Capacity]:
    """Connect to Ray and yield its capacity; disconnect at exit.

    ClusterUnavailable: the cluster refuses the token, runs another version of Ray, or has no GPU
    although actors are to take some.
    """
    prepare_environment(cluster.address)
    import ray
    from ray.exceptions import AuthenticationError

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    # Ray puts the driver's folder first on a worker's path, whatever files of the user's it holds.
    options["runtime_env"] = {"worker_process_setup_hook": "dqf.packages.load_own"}
    if cluster.address is None:
        options |= {"address": "local", "num_cpus": cluster.actors or _default_actors()}
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        # Workers that Ray starts ahead have no hook, and no actor of ours could be one (ray 2.60).
        options |= {"_system_config": {"prestart_worker_first_driver": False}}
        end_orphans()
        protect_token()
    else:
        options |= {"address": cluster.address}
    try:
        with mark_descendants() if cluster.address is None else nullcontext():
            ray.init(**options)
    except (AuthenticationError, ConnectionError, RuntimeError) as error:
        if cluster.address is None:
            raise
        raise ClusterUnavailable(
            f"cannot join the Ray cluster at {cluster.address}: {first_line(error)}; if it uses "
            f"one, {TOKEN_HELP}"
        ) from error
    except Exception as error:
        if "timed out during startup" not in str(error):  # Ray raises no class of its own
            raise
        raise ClusterUnavailable(
            "a local Ray did not start within 30 seconds, as the machine is busy: the same command "
            "tries again"
        ) from error
    session = None if cluster.address else _session_folder()
    try:
        yield _capacity(cluster)
    finally:
        ray.shutdown()
        if session is not None:
            shutil.rmtree(session, ignore_errors=True)


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
    """
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
    if named or is_file(Path("~/.ray/auth_token").expanduser()):
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
