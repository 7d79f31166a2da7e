"""Starting actors: when the next one may be tried, and when a run is given up."""

import time
from dataclasses import dataclass

from jobs.runs.provenance import code_hash
from schemas.errors import ClusterUnavailable, first_line

RESTART_S = 10.0
"""Longest pause after a failed start, in seconds."""
TRIES = 6
"""Consecutive failed starts that a run survives; one more ends it."""


@dataclass(slots=True, kw_only=True)
class Starts:
    """The starts of a run's actors so far."""

    has_succeeded: bool = False
    """Whether any actor was ever ready."""
    failed: int = 0
    """Consecutive failed starts; those at one time count once."""
    next_s: float = 0.0
    """When the next actor may be started, by the monotonic clock."""

    def succeeded(self, worker_code: str) -> None:
        """Note that an actor is ready; ClusterUnavailable if it runs other code."""
        if worker_code != code_hash():
            raise ClusterUnavailable(
                "a worker runs other code than this driver: install the same dqf on every node, "
                "or submit through http://HEAD:8265, which ships it"
            )
        self.has_succeeded = True

    def raised(self, error: BaseException) -> None:
        """Note the error of a worker's constructor; raise it if no actor was ever ready."""
        if not self.has_succeeded:
            raise error
        self._failed(error)

    def died(self, error: BaseException) -> None:
        """Note that an actor ended before its worker was made."""
        if getattr(error, "actor_init_failed", False) and not self.has_succeeded:
            raise RuntimeError(f"a worker could not start: {error}") from error
        self._failed(ClusterUnavailable(f"workers end while they start: {first_line(error)}"))

    def _failed(self, error: BaseException) -> None:
        """Have the next actor started later; raise `error` after too many failures."""
        now = time.monotonic()
        if now < self.next_s:
            return  # of the same outage: actors start and end together
        self.failed += 1
        if self.failed > TRIES:
            raise error
        self.next_s = now + min(RESTART_S, 2.0 ** (self.failed - 1))
