"""Tracing through the real command line, on real Ray, with a tiny model."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from jobs.query.select import run_query
from jobs.runs.trace_run import open_run
from tests.cli.test_commands import dqf

SCORES = "SELECT * FROM scores ORDER BY ALL"
CAPTIONS = """caption,subject,attribute,target
a red apple on a wooden table,apple,object,
a painting of a sailing ship,ship,object,
an old castle in the green forest,green,color,a green forest
"""


def command(folder: Path, model: Path, scorer: Path, run: str) -> list[str]:
    captions = folder / "captions.csv"
    captions.write_text(CAPTIONS)
    return [
        sys.executable, "-c", "from cli.app import main; main()", "trace", "submit",
        "--model", str(model), "--scorer", str(scorer), "--captions", str(captions),
        "--steps", "2", "--seed", "0", "--seed", "1", "--actors", "1", "--rows", "24",
        "--run", str(folder / "runs" / run),
    ]  # fmt: skip


def test_interrupted_and_resumed_gives_the_same_table(
    tmp_path: Path, tiny_sd: Path, tiny_scorer: Path
) -> None:
    whole = command(tmp_path, tiny_sd, tiny_scorer, "whole")
    done = dqf(*whole[3:])
    assert done.returncode == 0, done.stderr
    reference = run_query(open_run(tmp_path / "runs" / "whole"), SCORES)
    assert reference.num_rows

    cut = command(tmp_path, tiny_sd, tiny_scorer, "cut")
    process = subprocess.Popen(cut, stderr=subprocess.PIPE, text=True)
    parts = tmp_path / "runs" / "cut" / "parts"
    deadline_s = time.monotonic() + 120
    while not list(parts.glob("c*.parquet")) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    run = open_run(tmp_path / "runs" / "cut")
    if len(run.done_chunks()) < run.num_chunks:
        assert process.returncode == 130, errors
        assert "the same command" in errors
    resumed = dqf(*cut[3:])
    assert resumed.returncode == 0, resumed.stderr
    assert run_query(run, SCORES).equals(reference)

    other = dqf(*cut[3:], "--steps", "3")
    assert other.returncode == 2
    assert "was made with another numerics" in other.stderr
    rank = dqf("rank", str(tmp_path / "runs" / "whole"), "--format", "json")
    rows = json.loads(rank.stdout)
    assert {row["part"] for row in rows} == {"denoiser", "text-encoder"}
    assert {row["attribute"] for row in rows} == {"object", "color"}
