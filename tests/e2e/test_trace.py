"""Tracing through the real command line, on real Ray, with a tiny model."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import torch

from jobs.input.captions import read_captions
from jobs.pool.attempts import attempts
from jobs.query.select import run_query
from jobs.runs.run import Task
from jobs.runs.trace_run import TraceRun, open_run
from jobs.tracing.plan import check_plan, make_plan
from jobs.tracing.trace import prepare_run
from jobs.tracing.tracer import TraceWorker
from tests.cli.test_commands import dqf
from tests.rounding import assert_near

MEASURED = ("clean", "corrupted", "patched")
SCORES = "SELECT * FROM scores ORDER BY ALL"
CAPTIONS = """caption,subject,attribute,target
a red apple on a wooden table,apple,object,
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


def traced_here(location: Path, model: Path, scorer: Path, captions: Path) -> TraceRun:
    """Return a run of the same plan, traced in this process without Ray."""
    fields = {
        "model": str(model), "scorer": str(scorer), "captions": read_captions(captions),
        "seeds": [0, 1], "numerics": {"steps": 2},
    }  # fmt: skip
    run = prepare_run(location, check_plan(make_plan(fields)))
    worker = TraceWorker(run.location, rows=24, threads=1)
    for chunk in range(run.num_chunks):
        worker.run(Task(chunk=chunk))
    return run


def assert_same_scores(got: pa.Table, expected: pa.Table) -> None:
    """Check that two tables of scores are the same but for rounding in another process."""
    assert got.schema == expected.schema
    assert got.drop_columns([*MEASURED]) == expected.drop_columns([*MEASURED])
    for name in MEASURED:
        assert_near(torch.tensor(got[name].to_numpy()), torch.tensor(expected[name].to_numpy()))


def test_interrupted_and_resumed_gives_the_same_table(
    tmp_path: Path, tiny_sd: Path, tiny_scorer: Path
) -> None:
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
    units = len(run.units)
    if len(attempts(run)) > 1:  # the interrupt may come when all is done
        log = dqf("trace", "logs", run.location).stdout
        assert log.endswith(f" {units} of {units} units done, 0 failed\n")
    whole = traced_here(
        tmp_path / "runs" / "whole", tiny_sd, tiny_scorer, tmp_path / "captions.csv"
    )
    reference = run_query(whole, SCORES)
    assert reference.num_rows
    assert_same_scores(run_query(run, SCORES), reference)

    place = cut.index("--steps") + 1
    other = dqf(*cut[3:place], "3", *cut[place + 1 :])
    assert other.returncode == 2
    assert "was made with another numerics" in other.stderr
    rank = dqf("rank", str(tmp_path / "runs" / "cut"), "--format", "json")
    rows = json.loads(rank.stdout)
    assert {row["part"] for row in rows} == {"denoiser", "text-encoder"}
    assert {row["attribute"] for row in rows} == {"object", "color"}
