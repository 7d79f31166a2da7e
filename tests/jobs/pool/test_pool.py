"""The pool on a real local Ray: no unit lost, none twice, and only guilty ones failed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.cluster.connection import Capacity, Cluster, connected
from jobs.pool.actors import WorkerSpec
from jobs.pool.limits import Limits
from jobs.pool.pool import run_tasks
from jobs.pool.worker import Worker
from jobs.query.select import run_query
from jobs.runs.progress import open_tasks
from jobs.runs.run import IdentifiedUnit, TaskDone
from jobs.runs.trace_run import TraceRun, open_run
from schemas.errors import StoreError, TooManyFailures
from tests.made_up.small_run import all_units, commit_scores, make_run, score_rows


class ToyTracer:
    """Scores units without a model; some seeds raise, some kill the process, some hang."""

    def __init__(self, *, raising: int, raising_from: int, killing: int, hanging: int) -> None:
        self._raising, self._raising_from = raising, raising_from
        self._killing, self._hanging = killing, hanging

    def score_rows(self, row: IdentifiedUnit[Any]) -> list[dict[str, Any]]:
        time.sleep(0.01)
        if row.unit.seed == self._killing and row.unit.caption.subject == "dog":
            os.kill(os.getpid(), signal.SIGKILL)
        if row.unit.seed == self._hanging and row.unit.caption.subject == "cat":
            time.sleep(1000)
        if row.unit.seed == self._raising or row.unit.seed >= self._raising_from:
            raise ValueError("a broken unit")
        return score_rows(row)


class ToyWorker(Worker):
    """A worker of a toy tracer."""

    def __init__(
        self,
        run: str,
        *,
        raising: int = -1,
        raising_from: int = 10**9,
        killing: int = -1,
        hanging: int = -1,
        error: Exception | None = None,
    ) -> None:
        if error:
            raise error
        tracer = ToyTracer(
            raising=raising, raising_from=raising_from, killing=killing, hanging=hanging
        )
        super().__init__(open_run(run), tracer)


def work(
    run: TraceRun, capacity: Capacity, limits: Limits | None = None, **options: Any
) -> list[TaskDone]:
    seen: list[TaskDone] = []
    spec = WorkerSpec(worker_class=ToyWorker, options=options, gpus=0, target=capacity.actors)
    run_tasks(run, open_tasks(run), spec, limits=limits or Limits(), on_task=seen.append)
    return seen


@pytest.fixture(scope="module")
def capacity() -> Iterator[Capacity]:
    with connected(Cluster(actors=2)) as capacity:
        yield capacity


def test_each_unit_once_with_a_raising_a_killing_and_a_hanging_one(
    tmp_path: Path, capacity: Capacity
) -> None:
    run = make_run(tmp_path / "r", seeds=tuple(range(8)), chunk_units=3)
    limits = Limits(unit_s=1.0, failed=1.0)
    seen = work(run, capacity, limits, raising=3, killing=5, hanging=6)
    assert run.done_chunks() == set(range(8))
    assert sum(task.units for task in seen) == 24
    guilty = {(5, "dog"): "WorkerDied", (6, "cat"): "TimedOut"}
    expected = {
        row.unit_id: guilty.get((row.unit.seed, row.unit.caption.subject), "ValueError")
        for row in all_units(run)
        if row.unit.seed == 3 or (row.unit.seed, row.unit.caption.subject) in guilty
    }
    assert {failure.unit_id: failure.error for failure in run.failures()} == expected
    assert len(expected) == 5
    assert Counter(error for task in seen for error in task.errors) == Counter(expected.values())
    scored = run_query(run, "SELECT unit_id, count(*) AS n FROM scores GROUP BY 1").to_pylist()
    assert {row["unit_id"] for row in scored} == {row.unit_id for row in all_units(run)} - set(
        expected
    )
    assert {row["n"] for row in scored} == {4}
    assert len(run.live().packs) == 1


def test_only_missing_chunks_are_run(tmp_path: Path, capacity: Capacity) -> None:
    run = make_run(tmp_path / "r", chunk_units=1)
    commit_scores(run, 2)
    assert len(work(run, capacity)) == 5
    assert run.done_chunks() == set(range(6))


def test_a_damaged_part_that_packing_finds_is_traced_again(
    tmp_path: Path, capacity: Capacity
) -> None:
    run = make_run(tmp_path / "r", chunk_units=1)
    for chunk in range(5):
        commit_scores(run, chunk)
    Path(run.location, "parts", "c00000003.parquet").write_bytes(b"PAR1")
    work(run, capacity)
    assert run_query(run, "SELECT DISTINCT unit_id FROM scores").num_rows == 6
    assert run_query(run, "SELECT * FROM scores").num_rows == 24
    assert len(run.live().packs) == 1


@pytest.mark.slow
def test_a_run_whose_units_fail_stops_early(tmp_path: Path, capacity: Capacity) -> None:
    few = make_run(tmp_path / "few", seeds=(3,))
    assert sum(task.failed for task in work(few, capacity, raising_from=0)) == 3
    run = make_run(tmp_path / "many", seeds=tuple(range(400)))
    with pytest.raises(TooManyFailures, match=r"stopped: \d+ of \d+ units failed.*ValueError"):
        work(run, capacity, raising_from=20)
    assert 20 <= len(run.failures()) < 200
    work(run, capacity, Limits(failed=1.0), raising_from=390)
    assert run.done_chunks() == set(range(run.num_chunks))


@pytest.mark.parametrize("error", [StoreError("the bucket is gone"), KeyError("unet")], ids=repr)
def test_a_constructors_error_keeps_its_type(
    error: Exception, tmp_path: Path, capacity: Capacity
) -> None:
    run = make_run(tmp_path / "r")
    with pytest.raises(type(error)) as raised:
        work(run, capacity, error=error)
    assert raised.value.args == error.args


LISTENING = """
import contextlib, psutil, ray
from jobs.cluster.connection import Cluster, connected

with connected(Cluster(actors=1)) as capacity:
    actor = ray.remote(type("A", (), {"ready": lambda self: 1})).remote()
    ray.get(actor.ready.remote())
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            assert "ray::IDLE" not in process.cmdline(), "a worker that no actor can be"
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    print(connection.laddr.ip)
"""


def test_local_ray_listens_on_loopback_only() -> None:
    # In a process of its own: Ray reads what binds its sockets when it is imported.
    done = subprocess.run(
        [sys.executable, "-c", LISTENING], capture_output=True, text=True, check=True
    )
    listening = done.stdout.split()
    assert len(listening) > 3
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
