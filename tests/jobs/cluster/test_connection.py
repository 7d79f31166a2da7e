"""Connecting to Ray, where Ray itself does not start."""

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
