"""A run in a bucket: traced, stopped, resumed and read as one in a folder, against a real S3."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.query.select import run_query
from jobs.runs.kept_images import keep_images, kept_images, picked_units
from jobs.runs.packs import pack
from jobs.runs.progress import open_tasks
from jobs.runs.storage.opening import open_storage
from jobs.runs.trace_run import open_run
from jobs.tracing.status import status_of
from tests.e2e.test_trace import SCORES, command
from tests.jobs.runs.test_kept_images import selector
from tests.made_up.small_run import commit_scores, make_run
from tests.servers.bucket import BUCKET, CREDENTIALS, s3_server


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    with s3_server() as url:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": url}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield f"s3://{BUCKET}"


def test_a_run_in_a_bucket_is_as_one_in_a_folder(tmp_path: Path, bucket: str) -> None:
    near, far = make_run(tmp_path / "r"), make_run(f"{bucket}/r")
    assert (near.id, len(near.units)) == (far.id, len(far.units))
    for run in (near, far):
        for chunk in range(2):
            assert commit_scores(run, chunk)
        assert not commit_scores(run, 0)
    assert open_tasks(far) == open_tasks(near)
    assert run_query(far, SCORES).equals(run_query(near, SCORES))
    for run in (near, far):
        commit_scores(run, 2)
        pack(run, 0)
    assert far.live() == near.live()
    assert run_query(far, SCORES).equals(run_query(near, SCORES))
    for run in (near, far):
        unit_id, unit = next(iter(picked_units(run).items()))
        keep_images(run, unit_id, unit, selector())
    assert kept_images(far) == kept_images(near)
    assert len(kept_images(far)) == 1
    status = status_of(far)
    assert (status.state, status.done, status.left) == ("finished", 6, 0)


@pytest.mark.slow
def test_a_trace_into_a_bucket_is_stopped_and_resumed(
    tmp_path: Path, bucket: str, tiny_sd: Path, tiny_scorer: Path
) -> None:
    near = command(tmp_path, tiny_sd, tiny_scorer, "near")
    subprocess.run(near, check=True, capture_output=True)
    far = [*near[:-1], f"{bucket}/far"]
    process = subprocess.Popen(far, stderr=subprocess.PIPE, text=True)
    deadline_s = time.monotonic() + 120
    while not _has_parts(bucket) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    run = open_run(f"{bucket}/far")
    assert status_of(run).state == "stopped"
    assert open_tasks(run)
    resume = [*near[:3], "trace", "resume", f"{bucket}/far", "--actors", "1", "--rows", "24"]
    subprocess.run(resume, check=True, capture_output=True)
    assert not open_tasks(run)
    assert run_query(run, SCORES).equals(run_query(open_run(tmp_path / "runs/near"), SCORES))
    rank = [sys.executable, "-m", "dqf", "rank", f"{bucket}/far", "--format", "json"]
    assert json.loads(subprocess.run(rank, check=True, capture_output=True).stdout)


def _has_parts(bucket: str) -> bool:
    return len(open_storage(f"{bucket}/far").files("parts")) > 1
