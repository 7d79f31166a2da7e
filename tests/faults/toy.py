"""A worker without a model whose units fail, kill, hang or dawdle as they are told."""

import ctypes
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.pool.worker import Worker
from jobs.runs.run import IdentifiedUnit
from jobs.runs.trace_run import open_run
from schemas.errors import ModelUnavailable
from tests.made_up.small_run import score_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong in a driver's workers."""

    scratch: str
    """Folder of what outlives a worker: pids, marks of what has happened, nodes that worked."""
    sleep_s: float = 0.01
    """How long a unit takes."""
    units: dict[str, str] = field(default_factory=dict[str, str])
    """`SUBJECT-SEED` to raise, kill, hang, hang-in-c or fill-memory; `-once`: the first time."""
    raising_from: int = 10**9
    """Seeds from this one on raise."""
    constructor: str = ""
    """`fails`, or `fails-later`: only the workers after the first two."""
    packing: str = ""
    """What happens to a worker that packs."""
    first_is_slower: float = 1.0
    """How many times longer the units of the first worker take."""


class ToyTracer:
    """Scores units without a model."""

    def __init__(self, faults: Faults, *, sleep_s: float, node: str) -> None:
        self._faults, self._sleep_s, self._node = faults, sleep_s, node

    def score_rows(self, row: IdentifiedUnit[Any]) -> list[dict[str, Any]]:
        """Return made-up scores, unless something else is to happen."""
        time.sleep(self._sleep_s)
        name = f"{row.unit.caption.subject}-{row.unit.seed}"
        fault = self._faults.units.get(name, "")
        if not fault.endswith("-once") or is_first(self._faults, name):
            _happen(fault.removesuffix("-once"))
        if row.unit.seed >= self._faults.raising_from:
            _happen("raise")
        note(self._faults.scratch, "traced", row.unit_id)
        note(self._faults.scratch, f"nodes/{self._node}", row.unit_id)
        return score_rows(row)


def _happen(fault: str) -> None:
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hang":
        time.sleep(1000)
    if fault == "hang-in-c":
        ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock
    if fault == "fill-memory":
        _fill_memory()
    if fault == "raise":
        raise ValueError("a broken unit")


def _fill_memory() -> None:
    """Take 4 GB, unless Ray ends this process before."""
    held: list[bytes] = []
    for number in range(400):
        held.append(bytes([number % 255 + 1]) * 10**7)
        time.sleep(0.01)
    time.sleep(2)


class ToyWorker(Worker):
    """A worker of a toy tracer."""

    def __init__(self, run: str, *, faults: Faults, threads: int) -> None:
        """Note that this process works on the run, and where."""
        import ray

        if faults.constructor == "fails" or (faults.constructor and not _is_one_of_two(faults)):
            raise ModelUnavailable("no such model here")
        is_slow = faults.first_is_slower > 1 and is_first(faults, "slow")
        sleep_s = faults.sleep_s * (faults.first_is_slower if is_slow else 1.0)
        node = ray.get_runtime_context().get_node_id()
        super().__init__(open_run(run), ToyTracer(faults, sleep_s=sleep_s, node=node))
        note(faults.scratch, "pids", str(os.getpid()))
        self._packing = faults.packing

    def pack(self, group: int) -> None:
        """Pack a group of chunks, unless something else is to happen."""
        _happen(self._packing)
        super().pack(group)


def _is_one_of_two(faults: Faults) -> bool:
    return is_first(faults, "worker-0") or is_first(faults, "worker-1")


def note(scratch: str, folder: str, name: str) -> None:
    """Leave a mark."""
    path = Path(scratch, folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / name).touch()


def is_first(faults: Faults, name: str) -> bool:
    """Return True once, whichever process asks."""
    marks = Path(faults.scratch, "marks")
    marks.mkdir(parents=True, exist_ok=True)
    try:
        (marks / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
