"""Start times of processes, and the processes of a local Ray that outlived their driver."""

import contextlib
import os
import re
import sys
from collections.abc import Generator
from pathlib import Path

import psutil

DRIVER_VARIABLE = "DQF_LOCAL_DRIVER"
"""Environment variable by which every process of a local Ray names its driver."""
DRIVER = re.compile(r"(?P<pid>\d{1,10}):(?P<since>[\d.e+]{1,25})")
RAYS = re.compile(r"^ray::|[/\\]ray[/\\]")
"""In the command line of every process that Ray starts: its title, or the path of Ray's files."""
NAMESPACES = ("pid", "time")
"""Kernel namespaces in which numbers and times of processes mean something else."""


def started(pid: int) -> float | None:
    """Return the start time of a process; None if it does not exist or has ended.

    On Linux in clock ticks since the machine started, as psutil's time moves with the clock.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return _ticks(pid) if sys.platform == "linux" else process.create_time()
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None


def _ticks(pid: int) -> float:
    # Field 22 of proc(5)'s stat; the second is the program's name, which may hold anything.
    return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@contextlib.contextmanager
def mark_descendants() -> Generator[None]:
    """Mark processes that start until exit, and their descendants, with this one as their
    driver."""
    old = os.environ.get(DRIVER_VARIABLE)
    os.environ[DRIVER_VARIABLE] = f"{os.getpid()}:{started(os.getpid())}"
    try:
        yield
    finally:
        del os.environ[DRIVER_VARIABLE]
        if old is not None:
            os.environ[DRIVER_VARIABLE] = old


def orphans() -> list[psutil.Process]:
    """Return this user's processes of a local Ray whose driver is gone.

    Another program may have inherited the variable, from a shell that has it.
    """
    here = _namespaces(os.getpid())
    left: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.uids().real != os.getuid() or process.pid == os.getpid():
                continue
            driver = process.environ().get(DRIVER_VARIABLE)
            if not driver or _is_alive(driver) or _namespaces(process.pid) != here:
                continue
            if any(RAYS.search(word) for word in process.cmdline()):
                left.append(process)
    return left


def end_orphans() -> None:
    """Kill this user's processes of a local Ray whose driver is gone."""
    for process in orphans():
        with contextlib.suppress(psutil.Error):
            process.kill()


def _is_alive(driver: str) -> bool:
    """Return whether a driver runs; also of a text that no driver of this dqf has written."""
    match = DRIVER.fullmatch(driver)
    return match is None or str(started(int(match["pid"]))) == match["since"]


def _namespaces(pid: int) -> list[str]:
    """Return the identity of a process's namespaces; empty outside Linux."""
    folder = f"/proc/{pid}/ns"
    if not os.path.isdir(folder):
        return []
    return [os.readlink(f"{folder}/{name}") for name in NAMESPACES]
