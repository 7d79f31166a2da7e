"""Units that raise, kill, hang and dawdle, and workers that cannot start."""

import time
from pathlib import Path

import psutil
import pytest

from jobs.pool.attempts import attempts
from jobs.runs.parts import part_name
from jobs.runs.progress import open_tasks
from jobs.tracing.status import status_of
from tests.faults.running import FAILED, FINISHED, KILLED, check_whole, new_trial, wait_until

FAULTS = {
    "cat-1": "raise",
    "dog-2": "kill",
    "noto-3": "kill-once",
    "cat-4": "hang",
    "dog-5": "hang-in-c",
    "noto-6": "raise-once",
    "cat-7": "raise-once",
}
FAILURES = {
    "cat-1": "ValueError",
    "dog-2": "WorkerDied",
    "cat-4": "TimedOut",
    "dog-5": "TimedOut",
    "noto-6": "ValueError",
    "cat-7": "ValueError",
}


AGAIN = {"cat-1": "raise", "dog-2": "raise", "cat-4": "kill"}
STILL = {"cat-1": "ValueError", "dog-2": "ValueError", "cat-4": "WorkerDied"}


@pytest.mark.slow
def test_only_the_guilty_fail_and_are_tried_again(tmp_path: Path) -> None:
    trial = new_trial(tmp_path, seeds=30)
    assert trial.run_tasks(units=FAULTS, unit_s=1.0) == 0, trial.said
    check_whole(trial, [FINISHED], FAILURES)
    assert len(trial.run.live().packs) == 1
    # What killed now raises, and one that hung now kills.
    assert trial.run_tasks(units=AGAIN, retry_failed=True) == 0, trial.said
    check_whole(trial, [FINISHED, FINISHED], STILL)


@pytest.mark.slow
def test_killed_while_it_tries_again(tmp_path: Path) -> None:
    trial = new_trial(tmp_path, seeds=30)
    assert trial.run_tasks(units=dict.fromkeys(FAILURES, "raise")) == 0, trial.said
    driver = trial.start(units=AGAIN, retry_failed=True, sleep_s=0.5)
    wait_until(lambda: any(Path(trial.run.location, "parts").glob("*.r01.parquet")))
    driver.kill()
    driver.wait()
    assert trial.run_tasks(units=AGAIN, retry_failed=True) == 0, trial.said
    check_whole(trial, [FINISHED, KILLED, FINISHED], STILL)


@pytest.mark.slow
def test_tried_again_until_all_succeed(tmp_path: Path) -> None:
    trial = new_trial(tmp_path, seeds=30)
    names = [f"cat-{seed}" for seed in range(9)]
    for left in (9, 6, 3, 0):
        faults = dict.fromkeys(names[:left], "raise")
        assert trial.run_tasks(units=faults, retry_failed=left < 9) == 0, trial.said
        check_whole(trial, [FINISHED] * len(trial.drivers), dict.fromkeys(faults, "ValueError"))
    assert trial.run_tasks(retry_failed=True) == 0  # nothing is left to try
    assert len(list(Path(trial.run.location, "parts").glob("c*.r0?.parquet"))) == 3 + 2 + 1


@pytest.mark.slow
def test_poison_holds_nothing_up(tmp_path: Path) -> None:
    trial = new_trial(tmp_path, seeds=60)
    poison = {"cat-0": "hang", "cat-20": "kill", "cat-40": "kill"}
    driver = trial.start(units=poison, unit_s=5.0)
    trial.wait_until(chunks=trial.run.num_chunks - 1)
    assert not trial.run.storage.exists(part_name(0)), "the hung task is not given up yet"
    assert driver.wait(timeout=60) == 0, trial.said
    check_whole(
        trial, [FINISHED], {"cat-0": "TimedOut", "cat-20": "WorkerDied", "cat-40": "WorkerDied"}
    )


@pytest.mark.slow
def test_packing_that_kills_ends_no_run(tmp_path: Path) -> None:
    trial = new_trial(tmp_path)
    assert trial.run_tasks(packing="kill") == 0, trial.said
    assert not trial.run.live().packs
    check_whole(trial, [FINISHED])


@pytest.mark.slow
def test_a_unit_that_fills_the_memory(tmp_path: Path) -> None:
    trial = new_trial(tmp_path)
    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + 2e9) / memory.total
    trial.environment = {
        "RAY_memory_usage_threshold": f"{threshold:.3f}",
        "RAY_memory_monitor_refresh_ms": "100",
    }
    assert trial.run_tasks(units={"dog-5": "fill-memory"}) == 0, trial.said
    check_whole(trial, [FINISHED], {"dog-5": "WorkerDied"})
    (failure,) = trial.run.failures()
    assert "low on memory" in failure.traceback


@pytest.mark.slow
def test_failing_units_stop_a_run_and_it_can_continue(tmp_path: Path) -> None:
    trial = new_trial(tmp_path, seeds=60)
    assert trial.run_tasks(raising_from=30, failed=0.1) == 1
    (attempt,) = attempts(trial.run)
    assert attempt.outcome == FAILED
    assert "units failed" in attempt.message
    assert "dqf trace resume" in attempt.message
    assert "--max-failed 1" in attempt.message
    assert status_of(trial.run).state == "failed"
    assert open_tasks(trial.run)
    assert trial.run_tasks(raising_from=30, failed=1.0) == 0
    raised = {f"{subject}-{seed}" for subject in ("cat", "dog", "noto") for seed in range(30, 60)}
    check_whole(trial, [FAILED, FINISHED], dict.fromkeys(raised, "ValueError"))


@pytest.mark.slow
def test_workers_that_cannot_start(tmp_path: Path) -> None:
    trial = new_trial(tmp_path)
    assert trial.run_tasks(constructor="fails") == 2
    assert trial.said.splitlines()[-1] == "dqf: no such model here"
    assert "Traceback" not in trial.said
    # Only those fail that take the place of one that a unit has killed; one of two goes on.
    faults = {"cat-3": "kill-once"}
    assert trial.run_tasks(constructor="fails-later", units=faults, sleep_s=0.03) == 0, trial.said
    check_whole(trial, [FAILED, FINISHED])


@pytest.mark.slow
def test_a_slow_workers_last_tasks_are_done_by_another(tmp_path: Path) -> None:
    trial = new_trial(tmp_path, seeds=20)
    driver = trial.start(sleep_s=0.1, first_is_slower=100.0)  # 30 s a task of three units
    wait_until(lambda: any(trial.scratch.glob("pids/*")))
    start_s = time.monotonic()
    assert driver.wait(timeout=60) == 0
    # The other does 60 units in 6 s, the slow one would need another minute for its two tasks.
    assert time.monotonic() - start_s < 25
    check_whole(trial, [FINISHED])


@pytest.mark.slow
def test_no_worker_ever_starts_again(tmp_path: Path) -> None:
    trial = new_trial(tmp_path, seeds=60)
    poison = {f"{subject}-{seed}": "kill" for subject in ("cat", "dog") for seed in range(10)}
    start_s = time.monotonic()
    assert trial.run_tasks(constructor="fails-later", units=poison, sleep_s=0.03) == 2
    assert trial.said.endswith("dqf: no such model here\n")
    assert time.monotonic() - start_s < 90
    assert trial.run_tasks(sleep_s=0.0) == 0
    check_whole(trial, [FAILED, FINISHED])
