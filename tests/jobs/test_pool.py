"""The pool on a real local Ray: no unit lost, none twice, and only guilty ones failed."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cluster import Cluster, connected
from jobs.pool import drive
from jobs.query import run_query
from jobs.store import Failure, Run
from jobs.worker import ChunkDone
from schemas.errors import ModelUnavailable
from tests.jobs.small_run import make_run, score_rows


class ToyWorker:
    """Scores units without a model; some seeds raise, some kill the process."""

    def __init__(self, run: str, *, raising: int, killing: int, is_broken: bool = False) -> None:
        if is_broken:
            raise ModelUnavailable("no such model here")
        self._run = Run(Path(run))
        self._raising, self._killing = raising, killing

    def ready(self) -> bool:
        return True

    def run(self, chunk: int) -> ChunkDone:
        unit_rows = self._run.unit_rows(chunk)
        rows, failures = self.trace(unit_rows)
        self._run.commit(chunk, rows, failures)
        return ChunkDone(units=len(unit_rows), failed=len(failures))

    def trace(self, unit_rows: list[dict]) -> tuple[list[dict], list[Failure]]:
        rows: list[dict] = []
        failures: list[Failure] = []
        for row in unit_rows:
            time.sleep(0.01)
            if row["seed"] == self._killing and row["subject"] == "dog":
                os.kill(os.getpid(), signal.SIGKILL)
            if row["seed"] == self._raising:
                failures.append(
                    Failure(unit_id=row["unit_id"], error="E", message="m", traceback="t")
                )
            else:
                rows += score_rows(row)
        return rows, failures


@pytest.fixture(scope="module")
def ray_actors() -> Iterator[int]:
    with connected(Cluster(actors=2), num_chunks=99) as actors:
        yield actors


def test_each_unit_once_with_a_raising_and_a_killing_one(tmp_path: Path, ray_actors: int) -> None:
    run = make_run(tmp_path / "r", seeds=tuple(range(8)), chunk_units=3)
    seen: list[ChunkDone] = []
    options = {"raising": 3, "killing": 5}
    drive(run, ToyWorker, options, actors=ray_actors, on_chunk=seen.append)
    assert run.done_chunks() == set(range(8))
    assert sum(chunk.units for chunk in seen) == 24
    failed = {failure.unit_id: failure.error for failure in run.failures()}
    expected = {
        row["unit_id"]: "E" if row["seed"] == 3 else "WorkerDied"
        for row in run.unit_rows()
        if row["seed"] == 3 or (row["seed"] == 5 and row["subject"] == "dog")
    }
    assert failed == expected
    scored = run_query(run, "SELECT unit_id, count(*) AS n FROM scores GROUP BY 1").to_pylist()
    assert {row["unit_id"] for row in scored} == {row["unit_id"] for row in run.unit_rows()} - set(
        expected
    )
    assert {row["n"] for row in scored} == {4}


def test_only_missing_chunks_are_run(tmp_path: Path, ray_actors: int) -> None:
    run = make_run(tmp_path / "r", chunk_units=1)
    run.commit(2, [], [])
    seen: list[ChunkDone] = []
    options = {"raising": -1, "killing": -1}
    drive(run, ToyWorker, options, actors=ray_actors, on_chunk=seen.append)
    assert len(seen) == 5
    assert run.done_chunks() == set(range(6))


def test_a_constructors_error_is_the_users(tmp_path: Path, ray_actors: int) -> None:
    run = make_run(tmp_path / "r")
    options = {"raising": -1, "killing": -1, "is_broken": True}
    with pytest.raises(ModelUnavailable, match="no such model here"):
        drive(run, ToyWorker, options, actors=ray_actors, on_chunk=lambda _: None)


def test_local_ray_listens_on_loopback_only(ray_actors: int) -> None:
    import psutil
    import ray

    session = ray.get_runtime_context().get_node_id()
    assert session
    mine = psutil.Process().children(recursive=True)
    listening = [
        connection.laddr.ip
        for process in mine
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
