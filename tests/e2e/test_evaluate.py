"""An evaluation through the real command line, on real Ray, with a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
import torch

from jobs.evaluation.evaluate import EvaluationRequest, prepare_evaluation
from jobs.evaluation.worker import EvaluationWorker
from jobs.runs.evaluation_run import EDIT, EvaluationRun, open_evaluation
from jobs.runs.run import Task
from schemas.prompt_set import PromptSet
from tests.cli.test_commands import dqf
from tests.made_up.evaluated import few_names, write_edit

STEPS = 4


def table(run: EvaluationRun) -> list[tuple]:
    """Return all rows, in an order of their own."""
    paths = [str(path) for path in run.storage.local(run.live().names)]
    return duckdb.execute(f"FROM read_parquet({paths}) ORDER BY unit_id, prompt").fetchall()


@pytest.mark.slow
def test_killed_and_started_again_gives_the_same_table_bit_for_bit(tmp_path: Path) -> None:
    model = few_names(tmp_path / "few")
    edit = write_edit(tmp_path / "edit", model, torch.zeros_like)
    options = ["--images", "3", "--scorer", "builtin:emoji-sd", "--prompt-set", "small"]
    options += ["--actors", "2", "--steps"]
    evaluate = [sys.executable, "-m", "dqf", "edit", "evaluate", str(edit), *options, str(STEPS)]
    process = subprocess.Popen(
        evaluate, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    parts = edit / "evaluation" / "parts"
    deadline_s = time.monotonic() + 120
    while len(list(parts.glob("c*.parquet"))) < 3 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    run = open_evaluation(edit / "evaluation")
    assert 3 <= len(run.done_chunks()) < run.num_chunks
    done = subprocess.run(evaluate, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "harmonic mean" in done.stdout
    assert f"{run.num_chunks} of {run.num_chunks} units done" in done.stderr

    request = EvaluationRequest(
        edit=edit, seeds=3, steps=STEPS, scorer="builtin:emoji-sd", prompts=PromptSet.SMALL
    )
    alone = prepare_evaluation(request, tmp_path / "alone")
    alone.complete()
    worker = EvaluationWorker(alone.location, edits={EDIT: str(edit)}, threads=2)
    for chunk in reversed(range(alone.num_chunks)):
        worker.run(Task(chunk=chunk))
    rows = table(open_evaluation(edit / "evaluation"))
    assert len(rows) == sum(len(unit.subject.prompts) for unit in run.units)
    assert rows == table(alone)

    listed = dqf("edit", "results", str(edit), "--format", "json")
    summary = json.loads((edit / "evaluation" / "evaluation.json").read_text())
    assert json.loads(listed.stdout) == summary["results"]
    assert (edit / "evaluation" / "images" / "kept.png").is_file()
    columns = dqf("edit", "results", str(edit), "--format", "csv").stdout.splitlines()[0]
    assert columns.startswith("group,names,images,before,after,after_low,after_high,right_before")
    other = dqf("edit", "evaluate", str(edit), *options, "5")
    assert other.returncode == 2
    assert "another numerics" in other.stderr
