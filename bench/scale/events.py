"""A run on thousands of GPUs as a heap of events: the effects of one driver, losses and chunks.

What a GPU gets next, and what becomes of what it finishes or loses, is decided by the pool's own
backlog and calls; times are made up. GPUs are lost one by one, at random.
"""

import heapq
import random
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from jobs.pool.backlog import Backlog
from jobs.pool.calls import Call, Loss, PackCall, TaskCall, next_call
from jobs.pool.limits import Limits
from jobs.pool.packing import Groups
from jobs.pool.pool import CALLS_IN_FLIGHT
from jobs.pool.task_queue import TaskQueue
from jobs.runs.packs import group_chunks
from jobs.runs.run import IdentifiedUnit, Run, Task, TaskDone
from jobs.runs.storage.local import LocalStorage

TICK_S = 1.0
"""Seconds between two requests of idle GPUs for a copy."""
LOST = Loss(error=ConnectionError("its machine was lost"), is_hung=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The assumptions about a cluster and a run; all times in seconds."""

    gpus: int
    chunks: int
    chunk_units: int
    unit_s: float
    """Time of a unit on the slowest GPU."""
    fastest: float
    """Speeds are spread evenly from 1 to this many times that of the slowest GPU."""
    stragglers: int = 0
    """The number of GPUs with a tenth of the slowest's speed."""
    lost_every_h: float
    """Mean hours between two losses of one GPU."""
    return_s: float
    load_s: float
    notice_s: float
    """Time until the driver knows of a loss."""
    commit_s: float
    pack_s: float
    turn_s: float
    """The driver's time for each look at all calls in flight."""
    call_s: float
    """The driver's time for each answer that it finds."""
    has_copies: bool = True


@dataclass(frozen=True)
class UnwrittenRun(Run[int]):
    """A run of numbered units in a folder that does not exist; nothing is committed or kept."""

    made_by = "bench.scale.simulate"
    schema = pa.schema([])
    chunks: int
    size: int

    @property
    def plan(self) -> Any:
        """There is no plan: nothing here reads it."""
        raise NotImplementedError

    @property
    def units(self) -> range:
        """The units."""
        return range(self.chunks * self.size)

    @property
    def chunk_units(self) -> int:
        """Units of a chunk."""
        return self.size

    @property
    def unit_ids(self) -> list[str]:
        """The units' numbers as text."""
        return [*map(str, self.units)]

    def unit_rows(self, task: Task) -> list[IdentifiedUnit[int]]:
        """Return the units of a task."""
        return [IdentifiedUnit(unit_id=str(n), unit=n) for n in self.ordinals(task.chunk)]

    def complete(self) -> None:
        """Write nothing."""

    def commit(self, *_: Any, **__: Any) -> bool:
        """Keep nothing."""
        return True


class QueueWithoutCopies(TaskQueue):
    """A queue that gives idle GPUs no copies of tasks in hand."""

    def next(self, *, is_idle: bool) -> Task | None:
        """Return a task to hand out."""
        return super().next(is_idle=False)


@dataclass(slots=True)
class Gpu:
    """A GPU and the calls queued on it."""

    speed: float
    life: int = 0
    """A counter, raised at each loss: events with an earlier value are void."""
    calls: deque[Call] = field(default_factory=deque[Call])
    since: float = 0.0
    is_ready: bool = False


class Simulation:
    """One run of a case, from the first GPU's start to the last chunk's end."""

    def __init__(self, case: Case, seed: int = 0) -> None:
        """Have all GPUs start at once, the slowest first."""
        self.now = 0.0
        self.spent: defaultdict[str, float] = defaultdict(float)
        """GPU seconds by their use."""
        self.handed_out_s = 0.0
        """The time at which the queue was first empty."""
        self.driver_s = 0.0
        """The time that the driver worked."""
        self.driver_behind_s = 0.0
        """The longest time that an answer waited for the driver."""
        self.most_parts = self.losses = self.isolations = 0
        self._case, self._random = case, random.Random(seed)
        self._events: list[tuple[float, int, Callable[[Gpu], None], Gpu, int]] = []
        self._count = self._parts = 0
        self._driver, self._is_in_turn = Gpu(1.0), False
        self._answers: list[tuple[Gpu, int, float]] = []
        self._backlog = _backlog(case, clock=lambda: self.now, on_task=self._committed)
        self._idle = deque[Gpu]()
        spread = (case.fastest - 1) / case.gpus
        self._gpus = [
            Gpu(0.1 if number < case.stragglers else 1 + spread * number)
            for number in range(case.gpus)
        ]

    def run(self) -> "Simulation":
        """Run to the last chunk's end and return this."""
        for gpu in self._gpus:
            self._start(gpu)
        self._at(0.0, self._tick, self._driver)
        while self._backlog.queue.left:
            self.now, _, handle, gpu, life = heapq.heappop(self._events)
            if life == gpu.life:
                handle(gpu)
        for gpu in self._gpus:
            if gpu.is_ready:
                self.spent["copies" if gpu.calls else "waiting"] += self.now - gpu.since
        return self

    def _at(self, delay: float, handle: Callable[[Gpu], None], gpu: Gpu) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + delay, self._count, handle, gpu, gpu.life))

    def _start(self, gpu: Gpu) -> None:
        gpu.since = self.now
        self._at(self._case.load_s, self._ready, gpu)
        self._at(self._random.expovariate(1 / (3600 * self._case.lost_every_h)), self._lose, gpu)

    def _ready(self, gpu: Gpu) -> None:
        self.spent["loading"] += self.now - gpu.since
        gpu.is_ready, gpu.since = True, self.now
        self._call_driver(gpu)

    def _call_driver(self, gpu: Gpu) -> None:
        """Have the driver take an answer of a GPU and feed it, in its next turn."""
        self._answers.append((gpu, gpu.life, self.now))
        if not self._is_in_turn:
            self._take_turn()

    def _take_turn(self) -> None:
        answers, self._answers = self._answers, []
        seconds = self._case.turn_s + self._case.call_s * len(answers)
        self.driver_s += seconds
        self.driver_behind_s = max(self.driver_behind_s, self.now + seconds - answers[0][2])
        self._is_in_turn = True
        self._at(seconds, lambda _: self._end_turn(answers), self._driver)

    def _end_turn(self, answers: list[tuple[Gpu, int, float]]) -> None:
        for gpu, life, _ in answers:
            if gpu.life == life:
                self._feed(gpu)
        self._is_in_turn = False
        if self._answers:
            self._take_turn()

    def _feed(self, gpu: Gpu) -> None:
        while len(gpu.calls) < CALLS_IN_FLIGHT:
            call = next_call(self._backlog, gpu.calls)
            if call is None:
                if not gpu.calls:
                    self._idle.append(gpu)
                if not any(held.is_alone for held in gpu.calls):
                    self.handed_out_s = self.handed_out_s or self.now
                return
            gpu.calls.append(call)
            if len(gpu.calls) == 1:
                self._begin(gpu)

    def _begin(self, gpu: Gpu) -> None:
        call = gpu.calls[0]
        call.begun()
        self.spent["waiting"] += self.now - gpu.since
        gpu.since = self.now
        self._at(self._duration(call, gpu), self._finish, gpu)

    def _duration(self, call: Call, gpu: Gpu) -> float:
        if isinstance(call, PackCall):
            return self._case.pack_s
        commit_s = self._case.commit_s if isinstance(call, TaskCall) else 0.0
        unit_s = self._case.unit_s / gpu.speed * self._random.uniform(0.9, 1.1)
        return (call.units or 0) * unit_s + commit_s

    def _finish(self, gpu: Gpu) -> None:
        call, seconds = gpu.calls.popleft(), self.now - gpu.since
        gpu.since = self.now
        if isinstance(call, PackCall):
            self.spent["packing"] += seconds
            self._parts -= len(group_chunks(self._backlog.run, call.group))
            call.done(None)
        elif isinstance(call, TaskCall):
            self._finish_task(call, seconds)
        else:
            self.spent["work"] += seconds
            call.done(([], None))
        if gpu.calls:
            self._begin(gpu)
        self._call_driver(gpu)

    def _finish_task(self, call: TaskCall, seconds: float) -> None:
        if self._backlog.queue.is_done(call.task):
            self.spent["copies"] += seconds
        else:
            self.spent["committing"] += self._case.commit_s
            self.spent["work"] += seconds - self._case.commit_s
        call.done(TaskDone(units=self._case.chunk_units, seconds=seconds))

    def _committed(self, done: TaskDone) -> None:
        self._parts += 1
        self.most_parts = max(self.most_parts, self._parts)
        self.isolations += not done.seconds

    def _lose(self, gpu: Gpu) -> None:
        self.losses += 1
        self.spent["cut off" if gpu.calls else "waiting" if gpu.is_ready else "loading"] += (
            self.now - gpu.since
        )
        gone = Gpu(1.0, calls=gpu.calls)
        gpu.life += 1
        gpu.calls = deque[Call]()
        gpu.is_ready = False
        self._at(self._case.notice_s, self._notice, gone)
        self._at(self._case.return_s, self._start, gpu)

    def _notice(self, gone: Gpu) -> None:
        for number, call in enumerate(gone.calls):
            call.lost(LOST, is_first=number == 0)

    def _tick(self, clock: Gpu) -> None:
        """Feed the idle GPUs, in turn, until there is nothing for one."""
        self._idle = deque(g for g in self._idle if g.is_ready and not g.calls)
        for _ in range(len(self._idle)):
            gpu = self._idle.popleft()
            self._feed(gpu)
            if not gpu.calls:
                break
        self._at(TICK_S, self._tick, clock)


def _backlog(
    case: Case, *, clock: Callable[[], float], on_task: Callable[[TaskDone], None]
) -> Backlog:
    storage = LocalStorage(location="no such folder")
    run = UnwrittenRun(storage=storage, chunks=case.chunks, size=case.chunk_units)
    tasks = [Task(chunk=chunk) for chunk in range(case.chunks)]
    queue = (TaskQueue if case.has_copies else QueueWithoutCopies)(tasks, clock=clock)
    groups = Groups(run, tasks)
    return Backlog(run=run, limits=Limits(), on_task=on_task, queue=queue, groups=groups)
