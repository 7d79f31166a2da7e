"""Isolation: the units of a suspect task run one at a time, so that only guilty ones fail."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jobs.runs.parts import Failure
from jobs.runs.run import Row, Run, Task

STRIKES = 2
"""Workers that a unit must end while it runs alone: one death may come from outside."""


@dataclass(kw_only=True)
class Isolation:
    """A task whose units run one by one; the results are committed together at its end."""

    task: Task
    unit_ids: tuple[str, ...]
    rows: list[Row] = field(default_factory=list[Row])
    failures: list[Failure] = field(default_factory=list[Failure])
    index: int = 0
    """Index of the unit that is next or running."""
    strikes: int = 0
    """Workers that this unit has ended."""

    @classmethod
    def of(cls, run: Run[object], task: Task) -> "Isolation":
        """Return the isolation of a task's units."""
        return cls(task=task, unit_ids=tuple(row.unit_id for row in run.unit_rows(task)))

    @property
    def is_over(self) -> bool:
        """Whether every unit has run."""
        return self.index == len(self.unit_ids)

    def traced(self, rows: Sequence[Row], failure: Failure | None) -> None:
        """Note the outcome of the unit that ran."""
        self.rows += rows
        self._next(failure)

    def died(self, error: BaseException) -> None:
        """Note that the unit's worker died under it."""
        self.strikes += 1
        if self.strikes == STRIKES:
            message = f"the unit ended its worker's process {STRIKES} times when it ran alone"
            self._next(self._failure("WorkerDied", message, str(error)))

    def timed_out(self, limit_s: float) -> None:
        """Note that the unit ran for longer than is allowed."""
        self._next(self._failure("TimedOut", f"the unit ran for more than {limit_s:g} s", ""))

    def _failure(self, error: str, message: str, traceback: str) -> Failure:
        unit_id = self.unit_ids[self.index]
        return Failure(unit_id=unit_id, error=error, message=message, traceback=traceback)

    def _next(self, failure: Failure | None) -> None:
        self.failures += [failure] if failure else []
        self.index += 1
        self.strikes = 0
