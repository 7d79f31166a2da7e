"""Checking that a cluster answers, and lets a process join, before anything is made."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from jobs.cluster.connection import JOIN_S, fell_silent, prepare_environment
from schemas.errors import ClusterUnavailable

ANSWER_S = 5.0
"""Seconds within which a cluster has to accept a connection and to begin its answer; Ray itself
tries for many minutes."""
SETTINGS = 4
"""Type of the HTTP/2 frame that a server sends first (RFC 9113, section 3.4); its fourth byte."""
PING = b"\x08\x06"
"""Ray's ClusterInfoRequest of type PING, its client's first question to a server of `ray://`."""
QUESTIONS = {
    True: ("/ray.rpc.RayletDriver/ClusterInfo", PING),
    False: ("/ray.rpc.NodeInfoGcsService/GetClusterId", b""),
}
"""A question that every server of Ray (2.60) answers, by whether it is one of `ray://`."""


def check_address(address: str) -> None:
    """Raise ClusterUnavailable unless the cluster at an address lets a process join.

    It comes before a run is made: what is refused here leaves none.
    """
    address = _found_here() if address == "auto" else address
    check_answers(address)
    try_to_join(address)


def check_answers(address: str) -> None:
    """Raise ClusterUnavailable if no server of Ray answers at HOST:PORT within seconds.

    Ray itself would ask a silent one, or one of another program, for ever.
    """
    target = address.removeprefix("ray://")
    host, colon, port = target.rpartition(":")
    if not (host and colon and port.isascii() and port.isdecimal()) or "://" in host:
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


def try_to_join(address: str, *, seconds: int = JOIN_S) -> None:
    """Raise ClusterUnavailable unless another process joins a cluster within `seconds`.

    Ray's own code, where no exception reaches it, waits for minutes for a cluster that falls
    silent; a process can be ended.
    """
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        f"from jobs.cluster.connection import join_once\njoin_once({address!r}, {seconds})"
    )
    # -P: the user's files are not imported in place of dqf's or Ray's.
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True,
        errors="replace",
    )  # fmt: skip
    if done.returncode == -signal.SIGALRM:
        raise fell_silent(address, seconds)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        reason = done.stdout.strip() or f"cannot join the Ray cluster at {address}: {last}"
        raise ClusterUnavailable(reason)


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
