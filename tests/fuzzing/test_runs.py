"""Runs with one thing changed, and the commands that read them."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzzing.changes import CHANGES, Change, apply, fresh
from tests.fuzzing.running import check_ends_in_order
from tests.fuzzing.settings import LONG, QUICK
from tests.jobs.query.test_run_paths import traced
from tests.made_up.report_run import keep_images

QUICK_COMMANDS = (
    ("rank", "r"),
    ("rank", "r", "--format", "json"),
    ("query", "r", "SELECT * FROM ranking"),
    ("query", "r", "SELECT count(*), avg(clean) FROM trials JOIN units USING (unit_id)"),
    ("trace", "status", "r"),
    ("trace", "status", "r", "--format", "json"),
    ("trace", "logs", "r"),
    ("trace", "list"),
)
COMMANDS = (
    *QUICK_COMMANDS,
    ("doctor", "r"),
    ("doctor", "r", "--repair"),
    ("report", "r", "--out", "page.html"),
    ("plot", "r", "--figure", "ranking", "--out", "figure.svg"),
)
ATTEMPT = {
    "number": 0, "host": "elsewhere", "pid": 1, "pid_started": 1.0, "submission_id": None,
    "jobs_address": None, "started": "2026-01-01T00:00:00+00:00", "code_hash": "c",
    "versions": {"dqf": "0"}, "outcome": "finished", "message": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a working directory with a run of every kind of file."""
    work = tmp_path_factory.mktemp("whole")
    keep_images(traced(work / "runs" / "r"))
    (work / "runs" / "r" / "attempts").mkdir(exist_ok=True)
    (work / "runs" / "r" / "attempts" / "0000.json").write_text(json.dumps(ATTEMPT))
    (work / "runs" / "r" / "attempts" / "0000.log").write_text("tracing\n")
    return work


def check(whole: Path, folder: Path, change: Change, command: Sequence[str]) -> None:
    """Apply a change to a copy of a run and check how a command ends."""
    work = fresh(whole, folder)
    apply(change, work, outside=folder / "outside")
    check_ends_in_order(command, folder=folder)


@pytest.mark.parametrize("command", QUICK_COMMANDS)
def test_a_whole_run_is_read(command: tuple[str, ...], whole: Path, tmp_path: Path) -> None:
    fresh(whole, tmp_path)
    said = check_ends_in_order(command, folder=tmp_path)
    assert not said.startswith(("dqf:", "Usage"))


LOG_IN_LATIN_1 = Change(file=1, how="byte", at=1, value=0x9F)


@given(change=CHANGES, command=st.sampled_from(QUICK_COMMANDS))
@example(change=LOG_IN_LATIN_1, command=("trace", "logs", "r"))
@QUICK
def test_a_changed_run_is_read_or_refused(
    change: Change, command: Sequence[str], whole: Path, tmp_path: Path, until: float
) -> None:
    if time.monotonic() < until:
        check(whole, tmp_path, change, command)


@pytest.mark.slow
@given(change=CHANGES, command=st.sampled_from(COMMANDS))
@LONG
def test_many_changed_runs_are_read_or_refused(
    change: Change, command: Sequence[str], whole: Path, tmp_path: Path, until_late: float
) -> None:
    if time.monotonic() < until_late:
        check(whole, tmp_path, change, command)
