"""Fixtures that every test may use: tiny models in folders, built once a session.

They import what they build models with: it takes many seconds, which the process that only divides
the tests between others does not have, nor a process whose tests open no model.
"""

import gc
import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before NumPy and torch are imported, and for the processes that tests start: tiny arrays, of which
# more threads only wait for one another. OMP_NUM_THREADS=2 tries the suite with two.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

if TYPE_CHECKING:
    from jobs.runs.trace_run import TraceRun

# As jobs.cluster.connection does before a local Ray starts: whichever test imports Ray first, it
# listens on the loopback interface alone.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
# Ray lets its workers wait for any other process, such as those that run the other tests.
os.environ.setdefault("RAY_worker_niceness", "0")
# A job in a shell's background ignores Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

ONE_AFTER_ANOTHER = (
    "tests/cli/test_commands.py::test_the_doctor_finds_and_repairs",
    "tests/docs/test_readme.py::test_the_readme_and_the_tutorial_run_from_beginning_to_end",
    "tests/e2e/test_bucket.py",
    "tests/e2e/test_cluster_job.py",
    "tests/e2e/test_evaluate.py",
    "tests/e2e/test_families_on_ray.py",
    "tests/e2e/test_trace.py",
    "tests/e2e/test_trace_sets.py",
    "tests/faults/",
    "tests/jobs/cluster/",
    "tests/jobs/doctor/test_examine.py::test_a_process_of_a_killed_driver_is_noted",
    "tests/jobs/editing/test_edit.py::test_workers_of_ray_make_the_same_edit",
    "tests/jobs/evaluation/test_attack.py",
    "tests/jobs/pool/test_pool.py",
    "tests/test_public_face.py::test_workers_find_their_own_packages",
)
"""Tests that start Ray, or that look for processes that a Ray of this machine has left."""
TRACED = (
    "tests/docs/test_python_page.py",
    "tests/docs/test_sql_page.py",
    "tests/jobs/query/test_examples.py",
    "tests/schemas/test_columns.py",
)
"""Files of tests that read `traced_run`: one process traces it."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage among what the tests import: it stays, and each look at it takes long."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return how `make test` divides the tests between its processes: by files.

    A file's tests share what it has set up. Those of ONE_AFTER_ANOTHER go to one process: two Rays
    at once may not start within Ray's own limit of 30 seconds. They wait more than they compute, so
    that the other processes have two cores nearly to themselves.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if nodeid.startswith(ONE_AFTER_ANOTHER):
                return "one after another"
            return "traced" if file in TRACED else file

    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what is computed once a model out of the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny Stable Diffusion pipeline with random weights."""
    from tests.models import tiny

    folder = tmp_path_factory.mktemp("models") / "tiny-sd"
    tiny.build_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny open_clip model with random weights."""
    from tests.models import tiny

    folder = tmp_path_factory.mktemp("scorers")
    tiny.save_scorer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folders of tiny pipelines of the other families."""
    from tests.models.families import BUILDERS

    parent = tmp_path_factory.mktemp("families")
    for name, build in BUILDERS.items():
        build().save_pretrained(parent / name)
    return {name: parent / name for name in BUILDERS}


@pytest.fixture(scope="session")
def tiny_sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny Stable Diffusion 3 with random weights."""
    from tests.models.transformers import build_sd3

    folder = tmp_path_factory.mktemp("transformers") / "tiny-sd3"
    build_sd3().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny FLUX.1 dev with random weights."""
    from tests.models.transformers import build_flux

    folder = tmp_path_factory.mktemp("transformers") / "tiny-flux"
    build_flux(guidance_embeds=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def traced_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path, tiny_scorer: Path
) -> "TraceRun":
    """Return a small real run, finished; tests do not write to it."""
    from tests.made_up.traced import trace_tiny

    location = tmp_path_factory.mktemp("runs") / "demo"
    return trace_tiny(location, model=tiny_sd, scorer=tiny_scorer)
