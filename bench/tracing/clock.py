"""Timers and counters that the measurements put around the engine without changing it."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def synchronize(device: torch.device) -> None:
    """Wait until the accelerator has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(
    device: torch.device, work: Callable[[], T], now: Callable[[], float] = time.perf_counter
) -> tuple[float, T]:
    """Return the seconds that `work` took, and its result."""
    synchronize(device)
    start_s = now()
    result = work()
    synchronize(device)
    return now() - start_s, result


@dataclass(kw_only=True)
class Clock:
    """Exclusive seconds by name: a span inside another stops the outer one's."""

    device: torch.device
    now: Callable[[], float] = time.perf_counter
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _open: list[str] = field(default_factory=list[str])
    _since_s: float = 0.0

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Count the time until exit as `name`'s."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time counted as `name`'s."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self.span(name):
                return function(*args, **kwargs)

        return wrapped

    def _charge(self) -> None:
        synchronize(self.device)
        now_s = self.now()
        if self._open:
            self.seconds[self._open[-1]] += now_s - self._since_s
        self._since_s = now_s
