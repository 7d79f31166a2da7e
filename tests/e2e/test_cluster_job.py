"""A trace as a job on a real Ray cluster, as a user runs it: submit, watch, stop, resume."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from jobs.query.select import run_query
from jobs.runs.trace_run import TraceRun, open_run
from jobs.tracing.status import status_of
from tests.e2e.test_trace import SCORES, command
from tests.servers.ray_head import Head, ray_head


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as head:
        yield head


def wait_until(is_true: Callable[[], bool], *, seconds: float = 120) -> None:
    deadline_s = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def parts(path: Path) -> list[Path]:
    return [*path.glob("parts/c*"), *path.glob("packs/g*")]


def metrics(head: Head) -> str:
    """Return what Prometheus would read from the agents of the cluster's nodes."""
    (found,) = head.folder.glob("r/session_2*/prom_metrics_service_discovery.json")
    targets = [target for group in json.loads(found.read_text()) for target in group["targets"]]
    return "".join(requests.get(f"http://{t}/metrics", timeout=10).text for t in targets)


@pytest.mark.slow
def test_a_job_is_submitted_watched_stopped_and_resumed(
    tmp_path: Path, tiny_sd: Path, tiny_scorer: Path, head: Head
) -> None:
    whole = command(tmp_path, tiny_sd, tiny_scorer, "whole")[3:]
    path = tmp_path / "runs" / "whole"
    there = ("--gpus", "0", "--address", head.address)
    refused = head.dqf(*whole, *there, "--window", "7:9")
    assert refused.returncode == 2
    assert "past the last of 2 steps" in refused.stderr
    submitted = head.dqf(*whole, *there)
    assert submitted.returncode == 0, submitted.stderr
    submission_id = submitted.stdout.strip()
    (job,) = json.loads(
        head.dqf("trace", "list", "--address", head.address, "--format", "json").stdout
    )
    assert (job["submission_id"], job["run"]) == (submission_id, str(path))
    followed = head.dqf("trace", "logs", str(path), "--follow", "--address", head.address)
    units = len(open_run(path).units)
    assert f"{units} of {units} units done, 0 failed" in followed.stdout, followed.stderr
    assert head.token not in followed.stdout + followed.stderr
    status = json.loads(head.dqf("trace", "status", str(path), "--format", "json").stdout)[0]
    assert (status["state"], status["done"], status["left"]) == ("finished", units, 0)
    assert status["leading"]
    assert run_query(open_run(path), SCORES).num_rows
    assert "ray_dqf_units_total" in metrics(head)
    assert "ray_dqf_denoiser_rows_total" in metrics(head)


@pytest.mark.slow
def test_a_stopped_job_is_resumed_to_the_same_table(
    tmp_path: Path, tiny_sd: Path, tiny_scorer: Path, head: Head
) -> None:
    cut = command(tmp_path, tiny_sd, tiny_scorer, "cut")[3:]
    path = tmp_path / "runs" / "cut"
    there = ("--gpus", "0", "--address", head.address)
    more = [word for seed in range(2, 12) for word in ("--seed", str(seed))]
    assert head.dqf(*cut, *more, *there).returncode == 0
    wait_until(lambda: bool(parts(path)))
    run = open_run(path)
    stopped = head.dqf("trace", "stop", str(path))
    assert stopped.returncode == 0, stopped.stderr
    assert status_of(run).state in ("stopped", "interrupted")
    resumed = head.dqf("trace", "resume", str(path), *there, "--wait")
    assert resumed.returncode == 0, resumed.stderr
    assert f"{len(run.units)} of {len(run.units)} units done, 0 failed" in resumed.stderr
    wait_until(lambda: status_of(run).state == "finished")
    assert_whole(run)


def assert_whole(run: TraceRun) -> None:
    counts = "SELECT count(*) AS n, count(DISTINCT unit_id) AS units FROM scores"
    (row,) = run_query(run, counts).to_pylist()
    assert row["units"] == len(run.units)
    per_unit = run_query(run, "SELECT DISTINCT count(*) FROM scores GROUP BY unit_id, part")
    assert per_unit.num_rows == 2
    assert not run.failures()
