"""Signals that end a run: SIGTERM is what clusters, supervisors and `dqf trace stop` send."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from schemas.errors import Interrupted


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Yield what raises Interrupted once SIGTERM came; enter after ray.init, which sets its own.

    Ray hands SIGTERM on to no handler that was there before it (ray 2.60). The handler itself
    raises nothing: logging, and whatever runs in a destructor, would swallow it.
    """
    has_come = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal has_come
        has_come = True

    def check() -> None:
        if has_come:
            raise Interrupted("stopped by SIGTERM; `dqf trace resume` goes on")

    old = signal.signal(signal.SIGTERM, note)
    try:
        yield check
    finally:
        # Once it has come, ending takes a few seconds, which another one must not cut short.
        signal.signal(signal.SIGTERM, signal.SIG_IGN if has_come else old)
