"""Signals that end a run: SIGTERM is what clusters, supervisors and `dqf trace stop` send."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from schemas.errors import Interrupted


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interrupted where SIGTERM arrives until exit; enter after ray.init, which sets its own.

    Ray hands SIGTERM on to no handler that was there before it (ray 2.60).
    """
    old = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted("stopped by SIGTERM; `dqf trace resume` goes on")
