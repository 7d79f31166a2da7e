"""What tells a process from a later one of the same number."""

import sys
from pathlib import Path

import psutil


def started(pid: int) -> float | None:
    """Return when a process started; None if there is none, or only what is left of one.

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
