"""What becomes of calls that are done, raise or are lost, and of actors that cannot start."""

import time
from pathlib import Path

import pytest

from jobs.pool.backlog import Backlog
from jobs.pool.calls import Call, Loss, PackCall, TaskCall, UnitCall, next_call
from jobs.pool.limits import Limits
from jobs.pool.packing import PACK_TRIES
from jobs.pool.starts import TRIES, Starts
from jobs.runs.progress import open_tasks
from jobs.runs.provenance import code_hash
from jobs.runs.run import TaskDone
from jobs.runs.trace_run import TraceRun
from schemas.errors import ClusterUnavailable, ModelUnavailable
from tests.made_up.small_run import commit_scores, make_run, score_rows

DIED = Loss(error=ConnectionError("the node is gone"), is_hung=False)
HUNG = Loss(error=TimeoutError("it hung"), is_hung=True)


@pytest.fixture
def run(tmp_path: Path) -> TraceRun:
    return make_run(tmp_path / "run")


def backlog_of(run: TraceRun) -> Backlog:
    return Backlog.of(run, open_tasks(run), limits=Limits(), on_task=lambda done: None)


def next_task(backlog: Backlog, *in_hand: Call) -> TaskCall:
    call = next_call(backlog, in_hand)
    assert isinstance(call, TaskCall)
    return call


def next_unit(backlog: Backlog) -> UnitCall:
    call = next_call(backlog, ())
    assert isinstance(call, UnitCall)
    assert next_call(backlog, [call]) is None  # nothing runs beside it
    return call


def test_a_task_at_which_two_actors_died_runs_unit_by_unit(run: TraceRun) -> None:
    backlog = backlog_of(run)
    task = next_task(backlog).task
    next_task(backlog).lost(DIED, is_first=False)  # it waited: it is not to blame
    for _ in range(2):
        call = TaskCall(backlog=backlog, task=task, units=2)
        call.lost(DIED, is_first=True)
        if not backlog.isolations:
            assert next_task(backlog).task == task
    rows = run.unit_rows(task)
    for _ in range(2):
        next_unit(backlog).lost(DIED, is_first=True)
    next_unit(backlog).done((score_rows(rows[1]), None))
    assert [(f.unit_id, f.error) for f in run.failures()] == [(rows[0].unit_id, "WorkerDied")]
    assert backlog.queue.is_done(task)
    assert backlog.queue.left == run.num_chunks - 1


def test_a_task_that_hung_runs_unit_by_unit_at_once(run: TraceRun) -> None:
    backlog = backlog_of(run)
    call = next_task(backlog)
    call.lost(HUNG, is_first=True)
    rows = run.unit_rows(call.task)
    next_unit(backlog).lost(HUNG, is_first=True)
    next_unit(backlog).done((score_rows(rows[1]), None))
    assert [(f.unit_id, f.error) for f in run.failures()] == [(rows[0].unit_id, "TimedOut")]


def test_a_call_that_raises_gives_its_work_back(run: TraceRun) -> None:
    backlog = backlog_of(run)
    call = next_task(backlog)
    call.raised(OSError("no space left"))
    assert next_task(backlog).task == call.task
    call.lost(HUNG, is_first=True)
    unit = next_unit(backlog)
    unit.raised(OSError("no space left"))
    assert next_unit(backlog).isolation is unit.isolation
    assert unit.isolation.index == 0


def test_a_group_that_cannot_be_packed_is_left_as_it_is(run: TraceRun) -> None:
    backlog = backlog_of(run)
    while backlog.queue.left:
        call = next_task(backlog)
        commit_scores(run, call.task.chunk)
        call.done(TaskDone(units=2))
    for tries in range(PACK_TRIES):
        call = next_call(backlog, ())
        assert isinstance(call, PackCall)
        if tries % 2:
            call.lost(DIED, is_first=True)
        else:
            call.raised(OSError("no space left"))
    assert not backlog
    assert run.done_chunks() == set(range(run.num_chunks))


def test_the_first_workers_error_is_raised_at_once() -> None:
    with pytest.raises(ModelUnavailable, match="no such model"):
        Starts().raised(ModelUnavailable("no such model"))


def test_workers_that_no_longer_start_are_tried_again_before_their_error_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts, now = Starts(), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    starts.succeeded(code_hash())
    waits: list[float] = []
    for _ in range(TRIES):
        starts.raised(ModelUnavailable("no such model"))
        starts.raised(ModelUnavailable("no such model"))  # of the same outage
        waits.append(starts.next_s - now[0])
        now[0] = starts.next_s
    assert waits == [1, 2, 4, 8, 10, 10]
    with pytest.raises(ModelUnavailable, match="no such model"):
        starts.raised(ModelUnavailable("no such model"))
    starts.failed = 0  # a call was done
    starts.died(ConnectionError("gone"))
    starts.failed, now[0] = TRIES, starts.next_s
    with pytest.raises(ClusterUnavailable, match="workers end while they start: gone"):
        starts.died(ConnectionError("gone"))


def test_a_worker_of_other_code_is_refused() -> None:
    with pytest.raises(ClusterUnavailable, match="other code"):
        Starts().succeeded("another hash")
