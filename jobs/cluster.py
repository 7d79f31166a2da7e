"""Connecting to Ray: a local one on the loopback interface, or a cluster with its token."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import ClusterUnavailable, first_line

OBJECT_STORE_BYTES = 200 * 2**20
"""Results never pass through the object store."""
ANSWER_S = 5.0
"""How long a cluster may take to accept a connection; Ray itself tries for many minutes."""
TOKEN_HELP = "put the cluster's token into RAY_AUTH_TOKEN or ~/.ray/auth_token"

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where actors run, and how many."""

    address: str | None = None
    """A Ray address; None starts a local Ray on the loopback interface."""
    actors: int | None = None
    """None: one a GPU, else one a core up to four (`threads` of each share the cores)."""


def check_address(address: str) -> None:
    """Raise ClusterUnavailable if nothing listens at HOST:PORT."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdecimal()) or "://" in host:
        raise ClusterUnavailable(f"address {address!r} is not HOST:PORT, such as 10.0.0.5:6379")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterUnavailable(
            f"no Ray cluster answers at {address}: {error}; start one, or leave --address out"
        ) from error


@contextmanager
def connected(cluster: Cluster, *, num_chunks: int) -> Iterator[int]:
    """Connect to Ray and yield the number of actors to start; disconnect at exit.

    ClusterUnavailable: the cluster refuses the token, or runs another version of Ray.
    """
    prepare_environment(cluster.address)
    import ray
    from ray.exceptions import AuthenticationError

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    wanted = cluster.actors or _default_actors()
    if cluster.address is None:
        # One CPU more than actors, for the throwaway actor that isolates a suspect.
        options |= {"address": "local", "num_cpus": wanted + 1, "include_dashboard": False}
        options |= {"object_store_memory": OBJECT_STORE_BYTES}
    else:
        options |= {"address": cluster.address}
    try:
        ray.init(**options)
    except (AuthenticationError, ConnectionError, RuntimeError) as error:
        if cluster.address is None:
            raise
        raise ClusterUnavailable(
            f"cannot join the Ray cluster at {cluster.address}: {first_line(error)}; if it uses "
            f"one, {TOKEN_HELP}"
        ) from error
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        yield min(num_chunks, cluster.actors or gpus or wanted)
    finally:
        ray.shutdown()


def prepare_environment(address: str | None) -> None:
    """Set what Ray reads when it is imported: for a cluster, or for a local Ray if None."""
    if address is None:
        # Undocumented use of the flag (ray 2.60): makes every listener bind to 127.0.0.1.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        return
    named = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if named or Path("~/.ray/auth_token").expanduser().is_file():
        # Without it ray 2.60 sends no token to a cluster that was not started from here.
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _default_actors() -> int:
    return min(4, len(os.sched_getaffinity(0)))
