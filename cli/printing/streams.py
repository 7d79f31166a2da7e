"""Ending a command on a signal, or when stdout cannot be written."""

import errno
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, cast

from schemas.errors import DqfError
from schemas.printable import shown

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

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


WIDTH = re.compile("[0-9]{1,4}")
"""Pattern of a terminal's width; lines of more columns fill the memory."""


class StdoutLost(DqfError):
    """A stdout that cannot be written, on a full disk for example: nothing more can be shown."""


class _Stdout(io.FileIO):
    """The file of stdout, whose errors have a class of their own."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # The rest would be written again, and fail, when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if error.errno == errno.EPIPE:  # The reader has read enough.
                raise
            raise StdoutLost(f"cannot write to stdout: {error.strerror}") from error


def check_streams() -> None:
    """Raise DqfError if stdout is closed; a later write raises it too, on a full disk for example.

    Without a stderr, messages are dropped.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it stays open as stderr does
    if sys.stdout is None:
        sys.stdout = sys.stderr
        raise DqfError("stdout is closed, where would the output go? send it to a file")
    old = cast("io.TextIOWrapper", sys.stdout)
    try:
        number = old.fileno()
    except io.UnsupportedOperation:  # Text in memory, which is never full.
        return
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Stdout(number, "w", closefd=False)),
        encoding=old.encoding, errors=old.errors, line_buffering=old.line_buffering,
        write_through=old.write_through,
    )  # fmt: skip


def check_folder() -> None:
    """Raise DqfError if the working directory was deleted: no relative path means anything then."""
    try:
        os.getcwd()
    except OSError as error:
        raise DqfError(f"the working directory is gone ({error.strerror}): cd to one") from error


def check_width() -> None:
    """Raise DqfError for a width of the terminal for which no help or table can be laid out."""
    for name in ("COLUMNS", "TERMINAL_WIDTH"):
        text = os.environ.get(name, "")
        if text and not WIDTH.fullmatch(text):
            raise DqfError(f"{name}={shown(text)} must be a number up to 9999: unset it")


def flush_stdout() -> None:
    """Write the rest of stdout's buffer; DqfError if that is impossible."""
    with suppress(BrokenPipeError):
        sys.stdout.flush()
