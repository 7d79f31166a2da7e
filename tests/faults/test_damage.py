"""Files that a crash has damaged, and clocks that were wrong: what is done stays done."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.pool.attempts import begin
from jobs.query.select import run_query
from jobs.runs.packs import pack
from jobs.runs.parts import Failure, part_name
from jobs.runs.run import Task
from jobs.tracing.status import status_of
from tests.faults.running import FINISHED, KILLED, ROOT, check_whole, new_trial
from tests.made_up.small_run import commit_scores, score_rows

HOURS = 3600.0


@pytest.mark.slow
def test_what_is_damaged_and_nothing_else_is_traced_again(tmp_path: Path) -> None:
    trial = new_trial(tmp_path, seeds=200, chunk_units=1)
    run, folder = trial.run, Path(trial.run.location)
    # Chunk 7 failed and was tried again with success; its group is packed, like the next.
    (row,) = run.unit_rows(Task(chunk=7))
    failure = Failure(unit_id=row.unit_id, error="ValueError", message="m", traceback="t")
    run.commit(Task(chunk=7), [], [failure], units=1)
    run.commit(Task(chunk=7, generation=1), score_rows(row), [], units=1)
    for chunk in [c for c in range(590) if c != 7]:
        commit_scores(run, chunk)
    pack(run, 0)
    pack(run, 1)
    assert status_of(run).left == 10

    content = (folder / "packs/g000000.parquet").read_bytes()
    (folder / "packs/g000000.parquet").write_bytes(content[: len(content) // 2])
    damages = {512: b"", 513: b"garbage" * 100, 520: content[:3000], 560: b"PAR1"}
    for chunk, damage in damages.items():
        (folder / part_name(chunk)).write_bytes(damage)
    assert trial.run_tasks() == 0, trial.said
    traced = {path.name for path in trial.scratch.glob("traced/*")}
    lacking = [*range(256), *damages, *range(590, 600)]
    assert traced == {r.unit_id for chunk in lacking for r in run.unit_rows(Task(chunk=chunk))}
    for name in ("packs/g000000.parquet", "parts/c00000007.r01.parquet", *map(part_name, damages)):
        told = f"{name} was damaged: moved to quarantine/"
        assert told in trial.said or ".r01" in name
    check_whole(trial, [FINISHED])
    assert sorted(run.live().packs) == [0, 1, 2]
    assert len(run.storage.files("quarantine")) == 6


@pytest.mark.slow
def test_clocks_that_were_wrong_change_nothing(tmp_path: Path) -> None:
    trial = new_trial(tmp_path, seeds=60)
    folder = Path(trial.run.location)
    for chunk in range(30):
        commit_scores(trial.run, chunk)
    begin(trial.run)
    (folder / "parts" / ".c00000031.parquet.abcd1234").write_bytes(b"left")
    (folder / "parts" / ".c00000032.parquet.abcd1234").write_bytes(b"left")
    scores = run_query(trial.run, "SELECT * FROM scores ORDER BY ALL")
    for n, path in enumerate(sorted(folder.rglob("*"))):
        at = time.time() + (-1) ** n * (n + 2) * HOURS
        os.utime(path, (at, at))
        if path.parent.name == "attempts":
            text = path.read_text().replace('"started": "20', '"started": "21')
            path.write_text(text)
            os.utime(path, (at, at))
    status = status_of(trial.run)
    assert (status.done, status.left) == (90, 90)
    assert status.units_per_minute is None or status.units_per_minute >= 0
    assert status.eta_minutes is None or status.eta_minutes >= 0
    assert run_query(trial.run, "SELECT * FROM scores ORDER BY ALL").equals(scores)
    assert trial.run_tasks() == 0, trial.said
    assert len(list(trial.scratch.glob("traced/*"))) == 90
    check_whole(trial, [KILLED, FINISHED])


@pytest.mark.slow
def test_monotonic_clock_of_another_machine(tmp_path: Path) -> None:
    # Deadlines and ages of processes count from a machine's start, here 300 days ago.
    command = ["unshare", "--user", "--map-root-user", "--time", "--boottime", str(300 * 86400)]
    command += ["--monotonic", str(300 * 86400)]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no time namespace can be made here")
    trial = new_trial(tmp_path, seeds=30)
    arguments = f'{{"scratch": "{trial.scratch}", "units": {{"cat-3": "hang"}}, "unit_s": 1.0}}'
    driver = [sys.executable, "-m", "tests.faults.driver", trial.run.location, arguments]
    done = subprocess.run(
        [*command, *driver], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    check_whole(trial, [FINISHED], {"cat-3": "TimedOut"})
