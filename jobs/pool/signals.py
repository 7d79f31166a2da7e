"""Signals that end a run: Ctrl-C, and SIGTERM, which clusters, supervisors and `stop` send."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from schemas.errors import Interrupted

STOPPED = "stopped by SIGTERM; `dqf trace resume RUN` continues"


@contextmanager
def noted_signals() -> Generator[Callable[[], None]]:
    """Note SIGINT and SIGTERM until exit; yield a function that raises once one has come.

    It raises KeyboardInterrupt or Interrupted. A handler that raises by itself breaks Ray's calls
    (ray 2.60: "returned a result with an exception set"), so only a second Ctrl-C does. Enter after
    ray.init, which sets its own handlers.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in came:
            raise KeyboardInterrupt
        came.append(number)

    def check() -> None:
        if signal.SIGTERM in came:
            raise Interrupted(STOPPED)
        if came:
            raise KeyboardInterrupt

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def sigterm_raises() -> Generator[None]:
    """Raise Interrupted where SIGTERM arrives, until exit or until `noted_signals`."""
    came: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise Interrupted(STOPPED)

    old = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except BaseException as error:
        # DuckDB makes another error of it, and the handler that ray.init sets exits (ray 2.60).
        has_exited = isinstance(error, SystemExit) and error.code == signal.SIGTERM
        if not (came or has_exited):
            raise
        raise Interrupted(STOPPED) from None
    finally:
        signal.signal(signal.SIGTERM, old)
