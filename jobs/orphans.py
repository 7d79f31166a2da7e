"""Processes of a local Ray whose driver was killed: Ray's agents outlive it."""

import contextlib
import os

import psutil

DRIVER_VARIABLE = "DQF_DRIVER"
"""Environment variable by which every process of a local Ray names its driver."""


def mark_descendants() -> None:
    """Have the processes started from now on name this one as their driver."""
    process = psutil.Process()
    os.environ[DRIVER_VARIABLE] = f"{process.pid}:{process.create_time()}"


def orphans() -> list[psutil.Process]:
    """Return this user's processes whose driver is gone."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real != os.getuid() or process.pid == os.getpid():
                continue
            driver = process.environ().get(DRIVER_VARIABLE)
            if driver and not _is_alive(driver):
                found.append(process)
    return found


def end_orphans() -> None:
    """Kill this user's processes whose driver is gone."""
    for process in orphans():
        with contextlib.suppress(psutil.Error):
            process.kill()


def _is_alive(driver: str) -> bool:
    pid, _, started = driver.partition(":")
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(started)) < 2.0
    except psutil.NoSuchProcess:
        return False
