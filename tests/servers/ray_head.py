"""A real Ray head with token authentication, its clients, and a connection that can drop."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import requests

START_S = 90.0
ROOT = Path(__file__).parents[2]


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nothing listens on."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A running cluster of one node."""

    address: str
    token: str
    environment: dict[str, str]
    """What a client needs: a home folder without a token, and the path of the right one."""
    folder: Path
    client: ProcessPoolExecutor
    """Two processes: Ray reads the token once, and this one may have imported Ray."""

    def call(self, function: Callable[..., Any], *arguments: object, **options: object) -> Any:
        """Return what a function returns in the client's process."""
        return self.client.submit(function, *arguments, **options).result(timeout=120)

    def dqf(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a dqf command as a client of this cluster."""
        return self.python("-m", "dqf", *arguments, **environment)

    def python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Python as a client of this cluster; an empty variable is left out."""
        changed = self.environment | {"PYTHONPATH": str(ROOT)} | environment
        return subprocess.run(
            [sys.executable, *arguments],
            env={name: value for name, value in changed.items() if value},
            capture_output=True, text=True, cwd=self.folder, check=False, timeout=180,
        )  # fmt: skip


@contextmanager
def ray_head() -> Iterator[Head]:
    """Start a head on free ports; end all its processes at exit."""
    # A short path: the sockets' names may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="dqf", dir="/tmp"))
    token = secrets.token_hex(32)
    (folder / "token").write_text(token)
    port, dashboard, agent, ray_client = free_ports(4)
    environment = _environment(folder)
    command = [
        "ray", "start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--include-dashboard=true",
        f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={ray_client}",
        "--num-cpus=2", f"--temp-dir={folder / 'r'}", "--object-store-memory=100000000",
        "--disable-usage-stats",
    ]  # fmt: skip
    with open(folder / "head.log", "w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    client = ProcessPoolExecutor(
        2, get_context("spawn"), initializer=_become, initargs=(environment,)
    )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_for(address, process, folder / "head.log")
        yield Head(
            address=address, token=token, environment=environment, folder=folder, client=client
        )
    finally:
        client.shutdown(cancel_futures=True)
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    (folder / "home").mkdir()
    return kept | {
        "HOME": str(folder / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        # Every listener binds to the loopback interface.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
    }


def _become(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        assert process.poll() is None, log.read_text()
        with suppress(requests.RequestException):
            if requests.get(f"{address}/api/version", timeout=5).status_code == 401:
                return
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def _end(process: subprocess.Popen[bytes]) -> None:
    # Not asked politely: that takes five seconds, and there is nothing to save.
    started = psutil.Process(process.pid).children(recursive=True)
    for each in started:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.kill()
    process.wait()
    psutil.wait_procs(started, timeout=5)


class Wire:
    """Passes connections on to a server, counts what is sent to it, and can be cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent = 0
        self.is_cut = False
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Drop every connection, and each new one until `is_cut` is reset."""
        self.is_cut = True
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.is_cut:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._port))
                self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if sink.getpeername()[1] == self._port:
                    self.sent += len(data)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
