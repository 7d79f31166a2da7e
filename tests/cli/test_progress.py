"""Progress says at once what is done, then how fast and how long by single units."""

import io
import logging
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from cli.printing.lines import Detail, in_detail, note
from cli.printing.progress import Pace, progress_bar, rate_text, time_text
from jobs.pool import attempts
from jobs.runs.progress import Progress
from jobs.runs.trace_run import TraceRun
from tests.cli.test_commands import dqf
from tests.made_up.small_run import commit_scores, make_run


def at(done: int, *, failed: int = 0, total: int = 96) -> Progress:
    return Progress(done=done, failed=failed, total=total)


def test_the_rate_is_that_of_units_once_the_model_is_open() -> None:
    now_s = iter((0.0, 100.0, 106.0, 106.0))
    pace = Pace(things="units", clock=lambda: next(now_s))
    assert pace.words(at(0)) == ""
    # Two units in 100 s: the model's opening counts while nothing else is known.
    assert pace.words(at(2)) == ", 1.2 units/min, 78 min left"
    assert pace.words(at(5, failed=1)) == ", 1 failed, 30 units/min, 3 min left"
    assert pace.words(at(96)) == ""


def test_a_resumed_run_counts_its_own_units_alone() -> None:
    now_s = iter((0.0, 10.0))
    pace = Pace(things="units", clock=lambda: next(now_s))
    assert pace.words(at(50)) == ""
    assert pace.words(at(60)) == ", 1 units/s, 36 s left"


def test_rates_and_times_have_readable_units() -> None:
    assert [rate_text(r, "units") for r in (12.34, 0.5, 0.001)] == [
        "12.3 units/s", "30 units/min", "3.6 units/h",
    ]  # fmt: skip
    assert [time_text(s) for s in (0.2, 89, 91, 5399, 9000)] == [
        "1 s", "89 s", "2 min", "90 min", "2.5 h",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("detail", "lines"),
    [
        (Detail(), ["starting", "tracing: 1 of 1 units"]),
        (Detail(progress=False), ["starting"]),
        (Detail(quiet=True), []),
    ],
)
def test_quiet_and_no_progress_say_less(detail: Detail, lines: list[str]) -> None:
    with redirect_stderr(io.StringIO()) as errors, in_detail(detail):
        note("starting")
        with progress_bar() as show:
            show(at(1, total=1))
    assert errors.getvalue().splitlines() == lines


@pytest.mark.parametrize("verbose", [True, False])
def test_the_log_is_on_stderr_only_if_it_is_asked_for(run: TraceRun, verbose: bool) -> None:
    root, others = logging.getLogger(), io.StringIO()
    handler = logging.StreamHandler(others)
    root.addHandler(handler)
    try:
        with redirect_stderr(io.StringIO()) as errors, in_detail(Detail(verbose=verbose)):
            attempt = attempts.begin(run)
            with attempts.logged(run, attempt):
                logging.getLogger("jobs.pool.driver").info("48 tasks to do")
    finally:
        root.removeHandler(handler)
    assert errors.getvalue() == ("48 tasks to do\n" if verbose else "")
    assert others.getvalue() == ""


FIRST = """
import os
import sys

class First:
    def write(self, text):
        line = (text if isinstance(text, str) else bytes(text).decode()).strip()
        if line:
            print(line, sorted({"torch", "ray", "duckdb"} & set(sys.modules)), flush=True)
            os._exit(0)
    def flush(self):
        pass
    def isatty(self):
        return False

sys.stderr = First()
from cli.app import main
main()
"""


def test_the_first_line_comes_before_any_framework(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FIRST, "trace", "submit", "--window", "21:22"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "reading the plan []\n"


@pytest.fixture
def run(tmp_path: Path) -> TraceRun:
    return make_run(tmp_path / "runs" / "r")


def test_status_is_in_whole_numbers_and_short_names(run: TraceRun, tmp_path: Path) -> None:
    for chunk in range(run.num_chunks):
        commit_scores(run, chunk)
    shown = dqf("trace", "status", "r", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "minutes left" not in shown.stdout  # nothing is left
    assert "largest mean effect so far, by target:" in shown.stdout
    assert "layer 0 MLP" in shown.stdout
    (head,) = (line for line in shown.stdout.splitlines() if " run " in line)
    assert "message" not in head
