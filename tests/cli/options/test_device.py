"""`--device`: which device a command's networks and actors use."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.options import device
from cli.options.device import Device, cluster_on, use_here
from engine.model.device import DEVICE, is_cpu, process_device
from schemas.errors import ModelUnavailable, PlanError


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test set the variables of devices for itself alone."""
    for name in (DEVICE, device.VISIBLE):
        monkeypatch.setenv(name, "")


def test_actors_take_gpus_as_the_device_says() -> None:
    assert cluster_on(None).gpus_an_actor is None
    assert cluster_on(Device.CPU, actors=3).gpus_an_actor == 0
    assert cluster_on(Device.CUDA, address="ray:1").gpus_an_actor == 1
    assert cluster_on(None, gpus=0.25, address="ray:1").gpus_an_actor == 0.25


@pytest.mark.parametrize("kind", [Device.CUDA, Device.MPS])
def test_a_gpu_that_is_not_there_is_refused(kind: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.model.device.is_there", lambda kind: False)
    with pytest.raises(ModelUnavailable, match=f"--device {kind}: "):
        use_here(kind)
    assert is_cpu()


def test_the_workers_of_this_machine_share_its_apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelUnavailable, match="--device mps is of this machine"):
        cluster_on(Device.MPS, address="ray:1")
    monkeypatch.setattr("engine.model.device.is_there", lambda kind: True)
    cluster = cluster_on(Device.MPS)
    assert (cluster.actors, cluster.gpus_an_actor) == (1, 0)
    assert process_device().type == "mps"


def test_a_run_that_memory_does_not_hold_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=10**6))
    done = CliRunner().invoke(app, ["trace", "submit", "--run", str(tmp_path / "r")])
    assert isinstance(done.exception, PlanError)
    assert "take 0.0 GB and this machine has 0.0 GB" in str(done.exception)
    assert list(tmp_path.iterdir()) == []
