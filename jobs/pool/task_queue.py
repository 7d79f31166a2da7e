"""Which task is next: the plan's order, then, at the end of a run, second copies of slow tasks."""

import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jobs.runs.run import Task

SLOW = 2.0
"""A task in hand that takes this many medians is given to an idle actor too."""


@dataclass(slots=True)
class _InHand:
    copies: int = 1
    since: float | None = None
    """When an actor began with it; None while it waits behind another task."""


class TaskQueue:
    """The tasks of a run that are left, in hand and done.

    A task may be in hand twice, whichever copy is committed first: duplicates are harmless.
    """

    def __init__(
        self, tasks: Iterable[Task], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._todo = deque(tasks)
        self._in_hand: dict[Task, _InHand] = {}
        self._left = set(self._todo)
        self._isolated: set[Task] = set()
        self._losses: Counter[Task] = Counter()
        self._seconds: deque[float] = deque(maxlen=101)

    @property
    def left(self) -> int:
        """The number of tasks that are not done."""
        return len(self._left)

    def next(self, *, is_idle: bool) -> Task | None:
        """Return a task to hand out; an idle actor may get a copy of one that is in hand."""
        while self._todo:
            task = self._todo.popleft()
            if task not in self._left:
                continue
            if task in self._in_hand:
                self._in_hand[task].copies += 1
            else:
                self._in_hand[task] = _InHand()
            return task
        return self._copy() if is_idle else None

    def _copy(self) -> Task | None:
        """Return a task in hand without a copy: one that waits, or else one that takes long.

        Those that wait come first: they may wait behind one that hangs, as its copy would too.
        """
        now = self._clock()
        slow_s = SLOW * statistics.median(self._seconds) if self._seconds else float("inf")
        late: Task | None = None
        for task, held in self._in_hand.items():
            if held.copies > 1 or task in self._isolated:
                continue
            if held.since is None:
                held.copies += 1
                return task
            if late is None and now - held.since > slow_s:
                late = task
        if late is not None:
            self._in_hand[late].copies += 1
        return late

    def begun(self, task: Task) -> None:
        """Note that an actor begins with a task."""
        held = self._in_hand.get(task)
        if held and held.since is None:
            held.since = self._clock()

    def finish(self, task: Task, seconds: float = 0.0) -> bool:
        """Note that a task is committed; False if a copy of it was before."""
        self._in_hand.pop(task, None)
        self._isolated.discard(task)
        if task not in self._left:
            return False
        if seconds:
            self._seconds.append(seconds)
        self._left.discard(task)
        return True

    def give_back(self, task: Task) -> None:
        """Put a task that an actor has lost first in the queue, unless a copy of it is in hand."""
        held = self._in_hand.get(task)
        if held is None or task in self._isolated:
            return
        held.copies -= 1
        if held.copies == 0:
            del self._in_hand[task]
            self._todo.appendleft(task)

    def lose(self, task: Task) -> int:
        """Count an actor that died at a task; return how many have."""
        self._losses[task] += 1
        return self._losses[task]

    def isolate(self, task: Task) -> bool:
        """Keep a task out of the queue until it is done; False if it is, or is isolated already."""
        if task not in self._left or task in self._isolated:
            return False
        self._isolated.add(task)
        return True

    def is_done(self, task: Task) -> bool:
        """Return whether a task is committed."""
        return task not in self._left

    def reopen(self, task: Task) -> None:
        """Queue a committed task again, whose part is damaged, unless it is queued."""
        if task not in self._left:
            self._left.add(task)
            self._todo.appendleft(task)
