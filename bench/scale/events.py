"""A run on thousands of GPUs as a heap of events: what one driver, losses and chunks do to it.

The queue's rules are those of `jobs.pool.task_queue` and `jobs.pool.pool`: two chunks in hand a
GPU, what is lost comes first, at the end an idle GPU gets a copy of a chunk that waits or takes two
medians, groups are packed by whoever is free next. GPUs are lost one by one, at random.
"""

import heapq
import random
import statistics
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from jobs.pool.pool import CALLS_IN_FLIGHT
from jobs.pool.task_queue import SLOW
from jobs.runs.parts import GROUP_CHUNKS

TICK_S = 1.0
"""How often idle GPUs ask for a copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is assumed of a cluster and a run; all times in seconds."""

    gpus: int
    chunks: int
    chunk_units: int
    unit_s: float
    """On the slowest GPU."""
    fastest: float
    """Speeds are spread evenly from 1 to so many times that of the slowest."""
    stragglers: int = 0
    """So many GPUs have a tenth of the slowest's speed."""
    lost_every_h: float
    """Mean hours between two losses of one GPU."""
    return_s: float
    load_s: float
    notice_s: float
    """Until the driver knows of a loss."""
    commit_s: float
    pack_s: float
    turn_s: float
    """Of the driver's time each time that it looks for answers: it asks after every call."""
    call_s: float
    """Of the driver's time for each answer that it finds."""
    has_copies: bool = True


@dataclass(slots=True)
class Gpu:
    """A GPU and the work queued on it: chunks, or groups to pack as negative numbers."""

    speed: float
    life: int = 0
    """Raised at each loss: events of an earlier life are void."""
    work: deque[int] = field(default_factory=deque[int])
    since: float = 0.0
    is_ready: bool = False


class Simulation:
    """One run of a case, from the first GPU's start to the last chunk's end."""

    def __init__(self, case: Case, seed: int = 0) -> None:
        """Have all GPUs start at once, the slowest first."""
        self.now = 0.0
        self.spent: Counter[str] = Counter()
        """GPU seconds by what they went to."""
        self.handed_out_s = 0.0
        """When the queue was empty for the first time."""
        self.driver_s = 0.0
        """How long the driver worked."""
        self.driver_behind_s = 0.0
        """The longest that an answer waited for the driver."""
        self.most_parts = self.losses = 0
        self._case, self._random = case, random.Random(seed)
        self._events: list[tuple[float, int, Callable[[Gpu], None], Gpu, int]] = []
        self._count = self._parts = 0
        self._driver, self._is_in_turn = Gpu(1.0), False
        self._answers: list[tuple[Gpu, int, float]] = []
        self._todo, self._groups = deque(range(case.chunks)), deque[int]()
        self._copies, self._begun = dict[int, int](), dict[int, float]()
        self._done, self._left = bytearray(case.chunks), case.chunks
        self._missing = Counter(chunk // GROUP_CHUNKS for chunk in range(case.chunks))
        self._seconds, self._idle = deque[float](maxlen=101), deque[Gpu]()
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
        while self._left:
            self.now, _, handle, gpu, life = heapq.heappop(self._events)
            if life == gpu.life:
                handle(gpu)
        for gpu in self._gpus:
            if gpu.is_ready:
                self.spent["copies" if gpu.work else "waiting"] += self.now - gpu.since
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
        while len(gpu.work) < CALLS_IN_FLIGHT:
            work = self._next(is_idle=not gpu.work)
            if work is None:
                if not gpu.work:
                    self._idle.append(gpu)
                return
            gpu.work.append(work)
            if len(gpu.work) == 1:
                self._begin(gpu)

    def _next(self, *, is_idle: bool) -> int | None:
        if self._groups:
            return -1 - self._groups.popleft()
        while self._todo:
            chunk = self._todo.popleft()
            if not self._done[chunk]:
                self._copies[chunk] = self._copies.get(chunk, 0) + 1
                return chunk
        self.handed_out_s = self.handed_out_s or self.now
        return self._copy() if is_idle and self._case.has_copies else None

    def _copy(self) -> int | None:
        slow_s = SLOW * statistics.median(self._seconds) if self._seconds else float("inf")
        for chunk, copies in self._copies.items():
            if copies == 1 and self.now - self._begun.get(chunk, -slow_s) > slow_s:
                self._copies[chunk] = 2
                return chunk
        return None

    def _begin(self, gpu: Gpu) -> None:
        case, work = self._case, gpu.work[0]
        self.spent["waiting"] += self.now - gpu.since
        gpu.since = self.now
        if work < 0:
            self._at(case.pack_s, self._finish, gpu)
            return
        self._begun.setdefault(work, self.now)
        work_s = case.chunk_units * case.unit_s / gpu.speed * self._random.uniform(0.9, 1.1)
        self._at(work_s + case.commit_s, self._finish, gpu)

    def _finish(self, gpu: Gpu) -> None:
        work, seconds = gpu.work.popleft(), self.now - gpu.since
        gpu.since = self.now
        if work < 0:
            self.spent["packing"] += seconds
            self._parts -= GROUP_CHUNKS
        else:
            self._finish_chunk(work, seconds)
        if gpu.work:
            self._begin(gpu)
        self._call_driver(gpu)

    def _finish_chunk(self, chunk: int, seconds: float) -> None:
        self._copies.pop(chunk, None)
        self._begun.pop(chunk, None)
        if self._done[chunk]:
            self.spent["copies"] += seconds
            return
        self._done[chunk] = 1
        self._left -= 1
        self._seconds.append(seconds)
        self.spent["committing"] += self._case.commit_s
        self.spent["work"] += seconds - self._case.commit_s
        self._parts += 1
        self.most_parts = max(self.most_parts, self._parts)
        self._missing[chunk // GROUP_CHUNKS] -= 1
        if not self._missing[chunk // GROUP_CHUNKS]:
            self._groups.append(chunk // GROUP_CHUNKS)

    def _lose(self, gpu: Gpu) -> None:
        self.losses += 1
        self._account(gpu)
        lost = [work for work in gpu.work if work >= 0]
        self._groups.extend(-1 - work for work in gpu.work if work < 0)
        gpu.life += 1
        gpu.work.clear()
        gpu.is_ready = False
        notice = Gpu(1.0, work=deque(lost))
        self._at(self._case.notice_s, self._give_back, notice)
        self._at(self._case.return_s, self._start, gpu)

    def _account(self, gpu: Gpu) -> None:
        """Count what a GPU was at when it ended."""
        name = "cut off" if gpu.work else ("waiting" if gpu.is_ready else "loading")
        self.spent[name] += self.now - gpu.since

    def _give_back(self, notice: Gpu) -> None:
        for chunk in notice.work:
            if chunk in self._copies:
                self._copies[chunk] -= 1
                if not self._copies[chunk]:
                    del self._copies[chunk]
                    self._begun.pop(chunk, None)
                    self._todo.appendleft(chunk)

    def _tick(self, clock: Gpu) -> None:
        """Feed the idle GPUs, in turn, until there is nothing for one."""
        self._idle = deque(g for g in self._idle if g.is_ready and not g.work)
        for _ in range(len(self._idle)):
            gpu = self._idle.popleft()
            self._feed(gpu)
            if not gpu.work:
                break
        self._at(TICK_S, self._tick, clock)
