"""Ending a command on a signal, or when stdout cannot be written."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from schemas.errors import DqfError

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a process at once, without its `finally`, so temporary files would stay."""


@contextmanager
def tidy_end() -> Generator[None]:
    """Let SIGTERM and SIGHUP end the block by SystemExit with 128 plus the signal's number.

    Commands that continue after a signal, as tracing does, set their own handlers meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {n: signal.getsignal(n) for n in ENDING if signal.getsignal(n) is signal.SIG_DFL}
    for number in old:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def check_streams() -> None:
    """Raise DqfError if stdout is closed; without a stderr, messages are dropped."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it stays open as stderr does
    if sys.stdout is None:
        sys.stdout = sys.stderr
        raise DqfError("stdout is closed, where would the output go? send it to a file")


def flush_stdout() -> None:
    """Write the rest of stdout's buffer; DqfError if that is impossible, as on a full disk."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # The rest would be written again, and fail, when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            raise DqfError(f"cannot write to stdout: {error.strerror}") from error
