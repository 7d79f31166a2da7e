"""`cluster.yaml`: Ray's own check, and ours of what Ray's does not look at."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
Config = dict[str, Any]


@pytest.fixture
def config() -> Config:
    # Through JSON: what an anchor gives to several places is then a value of each.
    return json.loads(json.dumps(yaml.safe_load((ROOT / "cluster.yaml").read_text())))


def check(config: Config) -> None:
    """Raise if Ray refuses the file, or AssertionError if it is not ours."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))
    check_nodes(config["available_node_types"], head=config["head_node_type"])
    workers = [t for name, t in config["available_node_types"].items() if name != "head"]
    assert sum(t["max_workers"] for t in workers) == config["max_workers"], "max_workers"
    assert config["provider"]["cache_stopped_nodes"] is False
    check_docker(config["docker"])
    check_token(config)


def check_nodes(types: Config, *, head: str) -> None:
    """Look into `node_config`, which Ray hands to EC2 as it is."""
    keys = {"InstanceType", "ImageId", "IamInstanceProfile", "BlockDeviceMappings"}
    assert types[head]["resources"] == {"CPU": 0}, "a task could run on the head"
    assert set(types[head]["node_config"]) == keys
    assert set(types["gpu_spot"]["node_config"]) == {*keys, "InstanceMarketOptions"}
    assert types["gpu_spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert set(types["gpu_on_demand"]["node_config"]) == keys
    for name, market in (("gpu_spot", "spot"), ("gpu_on_demand", "on-demand")):
        assert types[name]["labels"] == {"ray.io/market-type": market}
        assert types[name]["resources"]["GPU"] == 1
    assert types["gpu_spot"]["priority"] > types["gpu_on_demand"].get("priority", 0)


def check_docker(docker: Config) -> None:
    """The image has the Ray that the tests ran with, for the oldest Python that dqf takes."""
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert pinned is not None
    assert docker["image"] == f"rayproject/ray:{pinned[1]}-py311-gpu"
    assert any(option.startswith("--shm-size=") for option in docker["run_options"])
    assert any(option.startswith("--ulimit nofile=") for option in docker["run_options"])


def check_token(config: Config) -> None:
    """Every Ray process asks for the token, and the Jobs API listens on loopback."""
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    for kind in ("head", "worker"):
        starts = [c for c in config[f"{kind}_start_ray_commands"] if "ray start" in c]
        assert len(starts) == 1
        assert starts[0].startswith("RAY_AUTH_MODE=token ray start "), kind
    (start,) = [c for c in config["head_start_ray_commands"] if "ray start" in c]
    assert "--dashboard-host=127.0.0.1" in start.split()


def test_the_file_passes(config: Config) -> None:
    check(config)


def replace_all(config: Config, key: str, old: str, new: str) -> None:
    config[key] = [text.replace(old, new) for text in config[key]]


def spot(config: Config) -> Config:
    return config["available_node_types"]["gpu_spot"]


BREAKS: dict[str, Callable[[Config], object]] = {
    "a typo at the top": lambda c: c.update(max_worker=1),
    "a typo in a node type": lambda c: spot(c).update(label={}),
    "half a GPU": lambda c: spot(c)["resources"].update(GPU=0.5),
    "a head that is not there": lambda c: c.update(head_node_type="heads"),
    "a typo in the spot stanza": lambda c: spot(c)["node_config"].update(
        InstanceMarketOption=spot(c)["node_config"].pop("InstanceMarketOptions")
    ),
    "a typo within the spot stanza": lambda c: spot(c)["node_config"].update(
        InstanceMarketOptions={"MarketTyp": "spot"}
    ),
    "no role for the workers": lambda c: spot(c)["node_config"].pop("IamInstanceProfile"),
    "tasks on the head": lambda c: c["available_node_types"]["head"]["resources"].update(CPU=4),
    "on demand first": lambda c: spot(c).pop("priority"),
    "groups beyond the sum": lambda c: spot(c).update(max_workers=99),
    "stopped nodes are kept": lambda c: c["provider"].update(cache_stopped_nodes=True),
    "another Ray": lambda c: c["docker"].update(image="rayproject/ray:2.59.0-py311-gpu"),
    "no room in /dev/shm": lambda c: c["docker"]["run_options"].remove("--shm-size=1g"),
    "no token file": lambda c: c["file_mounts"].pop("/home/ray/.ray/auth_token"),
    "a head without token": lambda c: replace_all(
        c, "head_start_ray_commands", "RAY_AUTH_MODE=token ", ""
    ),
    "workers without token": lambda c: replace_all(
        c, "worker_start_ray_commands", "RAY_AUTH_MODE=token ", ""
    ),
    "an open dashboard": lambda c: replace_all(
        c, "head_start_ray_commands", "127.0.0.1", "0.0.0.0"
    ),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_copy_is_refused(config: Config, broken: str) -> None:
    BREAKS[broken](config)
    with pytest.raises(Exception):  # noqa: B017, PT011
        check(config)
