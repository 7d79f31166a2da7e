"""A disk that fills up or turns read-only stops a run with one sentence; it can be resumed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.running import ROOT

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fills", "read-only"])
def test_a_disk_fails(tmp_path: Path, kind: str) -> None:
    if subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here")
    disk, scratch = tmp_path / "disk", tmp_path / "scratch"
    disk.mkdir()
    scratch.mkdir()
    script = [sys.executable, "-m", "tests.faults.small_disk", str(disk), str(scratch), kind]
    done = subprocess.run(
        [*UNSHARE, *script], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
