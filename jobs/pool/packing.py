"""The groups of chunks to pack: those that lack nothing and have no pack yet."""

from collections import Counter, deque
from collections.abc import Iterable

from jobs.runs.packs import group_chunks
from jobs.runs.parts import GROUP_CHUNKS
from jobs.runs.run import Run, Task

PACK_TRIES = 3
"""Attempts to pack a group; after the last its parts stay, which count like a pack."""


class Groups:
    """The groups of a run, as its driver sees them."""

    def __init__(self, run: Run[object], tasks: Iterable[Task]) -> None:
        """Count the uncommitted chunks of each group; groups without any are to be packed.

        A chunk that another driver has committed since `tasks` were listed counts as uncommitted
        until its task is done here: a group is whole when none of its tasks is left.
        """
        self._run = run
        self._missing: Counter[int] = Counter()
        self._whole: deque[int] = deque()
        self._losses: Counter[int] = Counter()
        self._packing = 0
        live, left = run.live(), {task.chunk for task in tasks if task.generation == 0}
        for group in range(-(-run.num_chunks // GROUP_CHUNKS)):
            if group not in live.packs:
                chunks = group_chunks(run, group)
                self._lacks(group, sum(c in left or (c, 0) not in live.parts for c in chunks))

    def _lacks(self, group: int, count: int) -> None:
        self._missing[group] = count
        if not count:
            self._whole.append(group)

    def __len__(self) -> int:
        """Return the number of groups that wait for being packed, or are in hand."""
        return len(self._whole) + self._packing

    def task_done(self, task: Task) -> None:
        """Note that a chunk is committed."""
        group = task.chunk // GROUP_CHUNKS
        if task.generation == 0 and group in self._missing:
            self._lacks(group, self._missing[group] - 1)

    def next(self) -> int | None:
        """Return a group to pack, if there is one."""
        if not self._whole:
            return None
        self._packing += 1
        return self._whole.popleft()

    def num_units(self, group: int) -> int:
        """Return the number of units in a group, at most."""
        return len(group_chunks(self._run, group)) * self._run.chunk_units

    def packed(self) -> None:
        """Note that a group that was handed out is packed."""
        self._packing -= 1

    def failed(self, group: int, *, is_damaged: bool) -> list[Task]:
        """Note that packing failed; return the tasks that are to be done again.

        If something was damaged or gone, another driver may have found it damaged, or packed the
        group.
        """
        self._packing -= 1
        self._losses[group] += 1
        gone = self._gone(group) if is_damaged else []
        if gone:
            self._lacks(group, len(gone))
        elif self._losses[group] < PACK_TRIES:
            self._whole.append(group)
        return gone

    def _gone(self, group: int) -> list[Task]:
        live = self._run.live()
        return [
            Task(chunk=chunk) for chunk in group_chunks(self._run, group) if not live.has(chunk)
        ]
