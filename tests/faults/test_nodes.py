"""A node of a cluster is lost and another joins: the pool follows, and nothing is lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.running import ROOT


@pytest.mark.slow
def test_a_node_is_lost_and_another_joins(tmp_path: Path) -> None:
    # In a process of its own: Ray reads how it binds and authenticates when it is imported.
    command = [sys.executable, "-m", "tests.faults.nodes", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
