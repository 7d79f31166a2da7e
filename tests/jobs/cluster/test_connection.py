"""Connecting to Ray, where Ray itself does not start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from jobs.cluster.connection import Cluster, connected
from schemas.errors import ClusterUnavailable


def init_raising(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ray's start raise, as it does on a machine that is too busy."""

    def init(**options: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)


def test_a_ray_that_does_not_start_in_time_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    init_raising(Exception("The current node timed out during startup. This could"), monkeypatch)
    with (
        pytest.raises(ClusterUnavailable, match=r"^a local Ray did not start within 30 seconds"),
        connected(Cluster()),
    ):
        raise AssertionError("not reached")


@pytest.mark.parametrize("error", [Exception("anything else"), RuntimeError("a fault of ours")])
def test_any_other_error_keeps_its_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    init_raising(error, monkeypatch)
    with pytest.raises(type(error), match=str(error)), connected(Cluster()):
        raise AssertionError("not reached")


def test_a_ray_that_is_imported_sends_the_token_too(tmp_path: Path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0" * 32)
    code = """
import ray
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from jobs.cluster.connection import prepare_environment
before = is_token_auth_enabled()
prepare_environment("http://127.0.0.1:8265")
print(before, is_token_auth_enabled())
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env | {"HOME": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_path_too_long_for_sockets_is_refused_before_a_run_is_made(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, "/tmp/" + "x" * 40)
    with pytest.raises(ClusterUnavailable, match=f"{name} has more than [0-9]+ bytes"):
        Cluster()
    Cluster(address="10.0.0.5:6379")
    monkeypatch.setenv(name, "/tmp")
    Cluster()
