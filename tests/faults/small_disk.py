"""Runs on a disk that fills up or turns read-only; needs a mount namespace of its own.

unshare -Urm python -m tests.faults.small_disk DISK SCRATCH fills|read-only
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from jobs.pool.attempts import Outcome, attempts
from jobs.query.catalog import write_catalog
from jobs.runs.packs import tidy
from jobs.runs.progress import open_tasks
from tests.faults.running import FAILED, FINISHED, Trial, check_whole
from tests.made_up.small_run import make_run

ROOM_BYTES = 200_000


def fills(trial: Trial, disk: Path) -> None:
    """Fill the disk, drive until that stops the run, make room and resume."""
    write_catalog(trial.run)
    disk_stat = os.statvfs(disk)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(disk_stat.f_bavail * disk_stat.f_frsize - ROOM_BYTES))
    assert trial.run_tasks() == 2, trial.said
    check_sentence(trial, "No space left on device")
    done = trial.run.done_chunks()
    assert 5 < len(done) < trial.run.num_chunks
    assert tidy(trial.run) == []
    ballast.unlink()
    assert trial.run_tasks() == 0, trial.said
    check_whole(trial, [end_of_first(trial), FINISHED])


def read_only(trial: Trial, disk: Path) -> None:
    """Make the disk read-only before, and then in the middle of, a run."""
    mount("-o", "remount,ro", str(disk))
    assert trial.run_tasks() == 2, trial.said
    check_sentence(trial, "Read-only file system")
    mount("-o", "remount,rw", str(disk))
    assert not attempts(trial.run)
    (trial.scratch / "stderr").unlink()

    parts = f"{trial.run.location}/parts"
    mount("--bind", parts, parts)
    driver = trial.start(sleep_s=0.05)
    trial.wait_until(chunks=5)
    mount("-o", "remount,bind,ro", parts)
    assert driver.wait(timeout=60) == 2, trial.said
    check_sentence(trial, "Read-only file system")
    assert open_tasks(trial.run)
    subprocess.run(["umount", parts], check=True)
    assert trial.run_tasks() == 0, trial.said
    check_whole(trial, [FAILED, FINISHED])


def check_sentence(trial: Trial, reason: str) -> None:
    """Check that one sentence says what is wrong, and that nothing is half-written."""
    *progress, sentence = trial.said.splitlines()
    assert re.fullmatch(rf"dqf: cannot use /.+: {reason}", sentence), trial.said
    assert not [line for line in progress if line.startswith(("dqf:", "Traceback"))], trial.said
    assert [path.name for path in Path(trial.run.location).rglob(".*")] == []


def end_of_first(trial: Trial) -> Outcome | None:
    """Return the first attempt's outcome, for whose record there may have been no room."""
    outcome = attempts(trial.run)[0].outcome
    assert outcome in (FAILED, None)
    return outcome


def mount(*arguments: str) -> None:
    """Mount something in this process's namespace."""
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    disk, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk))
    run = make_run(disk / "run", seeds=tuple(range(60)), chunk_units=3)
    {"fills": fills, "read-only": read_only}[sys.argv[3]](Trial(run=run, scratch=scratch), disk)
