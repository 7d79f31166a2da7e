"""Drives a run of toy workers as `dqf trace resume` drives one of real ones.

python -m tests.faults.driver RUN '{"scratch": "...", ...}'
"""

import json
import sys
from typing import Any

from jobs.cluster.connection import Cluster
from jobs.pool.limits import Limits
from jobs.runs.trace_run import open_run
from jobs.tracing.trace import trace_run
from schemas.errors import DqfError
from tests.faults.toy import Faults, ToyWorker


def drive_run(
    location: str,
    *,
    address: str | None = None,
    actors: int | None = 2,
    gpus: float | None = None,
    unit_s: float = 60.0,
    failed: float = 1.0,
    retry_failed: bool = False,
    **faults: Any,
) -> None:
    """Trace what the run lacks."""
    trace_run(
        open_run(location),
        cluster=Cluster(address=address, actors=actors, gpus_an_actor=gpus),
        rows=None,
        limits=Limits(unit_s=unit_s, failed=failed),
        retry_failed=retry_failed,
        on_progress=lambda at: None,
        note=say,
        worker_class=ToyWorker,
        options={"faults": Faults(**faults)},
    )


def say(line: str) -> None:
    """Show a line to the user."""
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    try:
        drive_run(sys.argv[1], **json.loads(sys.argv[2]))
    except DqfError as error:
        say(f"dqf: {error}")
        sys.exit(error.exit_code)
