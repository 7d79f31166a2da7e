"""A cluster of a head without CPUs and two nodes, of which one is lost; later one joins.

python -m tests.faults.nodes FOLDER
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Ray reads these when it is imported: loopback only, and no token.
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled"}

from ray.cluster_utils import Cluster as Nodes

from tests.faults.running import FINISHED, check_whole, new_trial, wait_until

STORE_BYTES = 80 * 2**20


def add(nodes: Nodes, **options: Any) -> Any:
    """Add a node with a GPU that is not there."""
    return nodes.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE_BYTES, **options)


def lose_one_and_add_one(folder: Path) -> None:
    """Kill a node in the middle of a run, let another join, and check the run."""
    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    with tempfile.TemporaryDirectory(prefix="dqf", dir="/tmp") as temporary:  # a short path
        nodes = Nodes(initialize_head=True, head_node_args=head | {"temp_dir": temporary})
        try:
            first, _ = add(nodes), add(nodes)
            trial = new_trial(folder, seeds=200)
            driver = trial.start(address=nodes.address, actors=None, sleep_s=0.05)
            worked = trial.scratch / "nodes"
            wait_until(lambda: worked.is_dir() and len(list(worked.iterdir())) == 2)
            trial.wait_until(chunks=20)
            before = set(worked.iterdir())
            nodes.remove_node(first, allow_graceful=False)
            trial.wait_until(chunks=50)
            started_s = time.monotonic()
            add(nodes)
            wait_until(lambda: len(list(worked.iterdir())) == 3, seconds=60)
            joined_s = time.monotonic() - started_s
            assert driver.poll() is None, "the late node came too late"
            assert driver.wait(timeout=120) == 0, trial.said
            check_whole(trial, [FINISHED])
            (late,) = set(worked.iterdir()) - before
            units = len(list(late.iterdir()))
            sys.stdout.write(f"the late node worked after {joined_s:.1f} s, {units} units\n")
            assert units > 10
        finally:
            nodes.shutdown()


if __name__ == "__main__":
    lose_one_and_add_one(Path(sys.argv[1]))
