"""Workers and drivers are killed in the middle of a run; nothing is lost and nothing twice."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.pool.attempts import attempts
from jobs.runs.packs import tidy
from jobs.runs.parts import pack_name
from jobs.runs.progress import open_tasks
from tests.covering import slow
from tests.faults.running import (
    FINISHED,
    KILLED,
    ROOT,
    STOPPED,
    WAIT_S,
    Trial,
    check_whole,
    new_trial,
    wait_until,
)
from tests.made_up.small_run import commit_scores

STORM_S = 60.0
"""How long workers are killed, at most, from the first one's start."""


@pytest.mark.parametrize(
    ("seeds", "sleep_s", "most"),
    [(40, 0.1, 4), slow(400, 0.03, 99)],
)
def test_workers_killed_time_and_again(
    tmp_path: Path, seeds: int, sleep_s: float, most: int
) -> None:
    trial = new_trial(tmp_path, seeds=seeds)
    driver, chance, kills = trial.start(sleep_s=sleep_s), random.Random(0), 0
    wait_until(lambda: bool(trial.workers()))  # on a busy machine Ray starts for a minute
    deadline_s = time.monotonic() + STORM_S
    while driver.poll() is None and kills < most and time.monotonic() < deadline_s:
        workers = trial.workers()
        if workers:
            chance.choice(workers).send_signal(signal.SIGKILL)
            kills += 1
        time.sleep(chance.uniform(0.5, 1.0))
    assert driver.wait(timeout=WAIT_S) == 0, trial.said
    assert kills > 2
    if trial.run.failures():  # one unit that was killed four times looks guilty
        assert trial.run_tasks(retry_failed=True) == 0
    check_whole(trial, [FINISHED] * len(trial.drivers))


@pytest.mark.slow
def test_driver_killed_then_stopped(tmp_path: Path) -> None:
    trial = new_trial(tmp_path, seeds=60)
    kill_driver(trial)
    driver = trial.start(sleep_s=0.1)
    started = set(trial.scratch.glob("pids/*"))
    wait_until(lambda: len(set(trial.scratch.glob("pids/*")) - started) == 2)
    trial.wait_until(chunks=len(trial.run.done_chunks()) + 4)
    check_stopped(trial, driver)
    assert [attempt.outcome for attempt in attempts(trial.run)] == [KILLED, STOPPED]
    assert open_tasks(trial.run)
    assert trial.run_tasks() == 0
    check_whole(trial, [KILLED, STOPPED, FINISHED])


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.1, 0.5, 1.5, 2.5])
def test_stopped_while_it_starts(tmp_path: Path, after_s: float) -> None:
    trial = new_trial(tmp_path)
    driver = trial.start(sleep_s=0.5)
    wait_until(lambda: bool(attempts(trial.run)))
    time.sleep(after_s)
    check_stopped(trial, driver)
    assert [attempt.outcome for attempt in attempts(trial.run)] == [STOPPED]


def check_stopped(trial: Trial, driver: subprocess.Popen[str]) -> None:
    """Send SIGTERM to a driver and check that it ends with a sentence and leaves nothing."""
    start_s = time.monotonic()
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=30) == 143, trial.said
    assert time.monotonic() - start_s < 15
    assert (
        trial.said.splitlines()[-1] == "dqf: stopped by SIGTERM; `dqf trace resume RUN` continues"
    )
    assert "Traceback" not in trial.said
    wait_until(lambda: not trial.processes_left(), seconds=15)


@pytest.mark.slow
def test_driver_killed_three_times(tmp_path: Path) -> None:
    trial = new_trial(tmp_path, seeds=60)
    for _ in range(3):
        kill_driver(trial)
    assert open_tasks(trial.run)
    assert trial.run_tasks() == 0
    check_whole(trial, [KILLED, KILLED, KILLED, FINISHED])


def kill_driver(trial: Trial) -> None:
    """Start a driver and kill it once it has done something."""
    driver = trial.start(sleep_s=0.05)
    trial.wait_until(chunks=len(trial.run.done_chunks()) + 5)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL


PACK = """
import sys
from jobs.runs.packs import pack
from jobs.runs.trace_run import open_run
pack(open_run(sys.argv[1]), 0)
"""


def packing_killed(trial: Trial, *, parts_left: int) -> None:
    """Pack the first group in a process that is killed once so few parts are left."""
    packing = subprocess.Popen([sys.executable, "-c", PACK, trial.run.location], cwd=ROOT)
    pack, parts = Path(trial.run.location, pack_name(0)), Path(trial.run.location, "parts")
    while not (pack.exists() and len(list(parts.glob("c*"))) <= parts_left):
        assert packing.poll() is None
    packing.send_signal(signal.SIGKILL)
    packing.wait()


@pytest.mark.parametrize(
    ("parts_left", "has_driver"),
    [slow(256, False), slow(200, False), (100, False), slow(100, True)],
)
def test_killed_while_packing(tmp_path: Path, parts_left: int, has_driver: bool) -> None:
    trial = new_trial(tmp_path, seeds=86, chunk_units=1)
    for chunk in range(256):
        commit_scores(trial.run, chunk)
    packing_killed(trial, parts_left=parts_left)
    assert len(open_tasks(trial.run)) == trial.run.num_chunks - 256 == 2
    if has_driver:  # the other group is traced and packed
        assert trial.run_tasks() == 0
        check_whole(trial, [FINISHED])
        assert sorted(trial.run.live().packs) == [0, 1]
        return
    assert tidy(trial.run) == []
    assert not list(Path(trial.run.location, "parts").glob("c*"))
    commit_scores(trial.run, 256)
    commit_scores(trial.run, 257)
    assert not open_tasks(trial.run)
