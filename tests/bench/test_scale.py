"""The measurement of a million units, on hundreds: it ends well only if no score is missing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = "--units 540 --captions 30 --chunk-units 2 --calls 0 --loose 20"


@pytest.mark.slow
def test_a_small_run_is_planned_killed_resumed_and_counted() -> None:
    command = [sys.executable, "-m", "bench.scale", *SMALL.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "270 chunks of 2" in done.stdout
    left = re.search(r"Resume: \d+ units done, (\d+) chunks left", done.stdout)
    # Its workers may end what they have in hand when the driver is gone.
    assert left is not None
    assert 125 <= int(left[1]) <= 135
    assert "'scores': 2160, 'distinct_scores': 2160" in done.stdout
    assert "wrong: none" in done.stdout


def test_a_small_run_is_simulated() -> None:
    command = [sys.executable, "-m", "bench.scale.simulate", "--gpus", "20", "--scores", "300000"]
    command += ["--seeds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert "2,142 units, 20 GPUs" in done.stdout
