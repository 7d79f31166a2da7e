"""Tracing a plan: make its run or find it, and work through what is left."""

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from engine import registry
from jobs.cluster import Cluster, connected
from jobs.plans import Planned
from jobs.pool import drive
from jobs.query import write_catalog
from jobs.store import Manifest, Run, create_run, open_run
from jobs.worker import ChunkDone, TraceWorker
from schemas.component import Component, Part
from schemas.errors import StoreError
from schemas.plan import TracePlan, plan_units

PACKAGES = ("dqf", "torch", "diffusers", "transformers", "open_clip_torch", "ray")
"""Packages whose versions the manifest records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is, in units."""

    done: int
    failed: int
    total: int


def prepare_run(path: Path, planned: Planned) -> Run:
    """Return the run of a plan at `path`, made if there is none.

    StoreError: another plan's run is there, the model has changed since, or it cannot be written.
    """
    manifest = _manifest(planned.plan)
    if (path / "plan.json").exists():
        run = open_run(path)
        _check_same(run, planned.plan, manifest)
        run.remove_leftovers()
        write_catalog(run)
        return run
    if path.exists():
        raise StoreError(f"{path} exists and is no run: choose another --run")
    names = names_by_part(planned.components)
    units = plan_units(planned.plan, names=names, steps=planned.steps)
    run = create_run(path, planned.plan, manifest, planned.components, units)
    write_catalog(run)
    return run


def trace_run(
    run: Run, *, cluster: Cluster, rows: int | None, on_progress: Callable[[Progress], None]
) -> Progress:
    """Trace what the run lacks on Ray and return where it stands.

    `rows` bounds the rows of a batch; each worker measures what is best on its device if None.
    """
    progress = progress_of(run)
    on_progress(progress)
    left = run.num_chunks() - len(run.done_chunks())
    if not left:
        return progress

    def on_chunk(chunk: ChunkDone) -> None:
        nonlocal progress
        progress = Progress(
            done=progress.done + chunk.units,
            failed=progress.failed + chunk.failed,
            total=progress.total,
        )
        on_progress(progress)

    with connected(cluster, num_chunks=left) as actors:
        options = {"rows": rows, "threads": _threads(actors)}
        drive(run, TraceWorker, options, actors=actors, on_chunk=on_chunk)
    return progress_of(run)


def progress_of(run: Run) -> Progress:
    """Return how far a run is, from its folder alone."""
    rows = run.unit_rows()
    done = run.done_chunks()
    return Progress(
        done=sum(row["chunk"] in done for row in rows),
        failed=len(run.failures()),
        total=len(rows),
    )


def _threads(actors: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // actors)


def names_by_part(components: Sequence[Component]) -> dict[Part, list[str]]:
    """Return the names of each part's components, in order."""
    names: dict = {component.part: [] for component in components}
    for component in components:
        names[component.part].append(component.name)
    return names


def _manifest(plan: TracePlan) -> Manifest:
    return Manifest(
        model_hash=registry.model_hash(plan.model),
        scorer_hash=registry.scorer_hash(plan.scorer),
        versions={name: version(name) for name in PACKAGES},
        git_commit=_git_commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _git_commit() -> str:
    """Return the commit of the code, or "" outside a checkout."""
    root = Path(__file__).parent
    result = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return result.stdout.strip()


def _check_same(run: Run, plan: TracePlan, manifest: Manifest) -> None:
    old_plan, old = run.plan().model_dump(), asdict(run.manifest())
    new_plan, new = plan.model_dump(), asdict(manifest)
    differing = [key for key in new_plan if new_plan[key] != old_plan[key]]
    differing += [key for key in ("model_hash", "scorer_hash") if new[key] != old[key]]
    if differing:
        raise StoreError(
            f"run {run.path} was made with another {' and '.join(differing)}: "
            "choose another --run, or give the same options to resume it"
        )
