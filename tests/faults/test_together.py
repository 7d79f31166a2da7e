"""Two drivers work on one run at once, and a reader reads it all the while."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.running import FINISHED, ROOT, WAIT_S, check_whole, new_trial

READER = """
import json, pathlib, sys, time
from jobs.query.select import run_query
from jobs.tracing.status import status_of
from jobs.runs.trace_run import open_run

COUNT = "SELECT count(*), count(DISTINCT (unit_id, component, measure)) FROM scores"
run, stop = open_run(sys.argv[1]), pathlib.Path(sys.argv[2])
counts, done = [0], [0]
while not stop.exists():
    rows, distinct = run_query(run, COUNT).to_pylist()[0].values()
    assert rows == distinct, (rows, distinct)
    assert rows >= counts[-1], (rows, counts[-1])
    status = status_of(run)
    assert status.done >= done[-1], (status.done, done[-1])
    counts.append(rows)
    done.append(status.done)
    time.sleep(0.1)  # the drivers need the cores as well
print(json.dumps([len(counts), len(set(counts)), max(counts)]))
"""


@pytest.mark.slow
def test_two_drivers_and_a_reader(tmp_path: Path) -> None:
    trial = new_trial(tmp_path, seeds=100, chunk_units=1)
    stop = tmp_path / "stop"
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, trial.run.location, str(stop)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        codes = [driver.wait(timeout=WAIT_S) for driver in (trial.start(), trial.start())]
    finally:
        stop.touch()
    said, _ = reader.communicate(timeout=60)
    assert codes == [0, 0], trial.said
    assert reader.returncode == 0
    reads, different, most = json.loads(said)
    assert most == 300 * 4
    assert reads > 10
    assert different > 5
    assert "works on this run too: no unit will count twice" in trial.said
    check_whole(trial, [FINISHED, FINISHED])
    assert sorted(trial.run.live().packs) == [0, 1]
