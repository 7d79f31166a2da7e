"""A run: its plan, written once, and all that follows from the plan alone.

`plan.json` is the run. Whoever creates it first has made the run; the other tables follow from it
and are written by whoever finds them missing.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import to_json

from jobs.runs.parts import EMPTY_PACK, EMPTY_PART, CorruptPart, read_part, write_part
from jobs.runs.provenance import Manifest
from jobs.runs.run import PLAN, Run
from jobs.runs.storage.opening import open_storage
from schemas.component import Component, names_by_part
from schemas.errors import StoreError
from schemas.plan import TracePlan
from schemas.tables import CAPTIONS, COMPONENTS, SCHEMA_VERSION, SCORES, SLABS, UNITS
from schemas.unit import Unit, UnitIds, Units, plan_units

BATCH_UNITS = 2**16
"""Rows of `units.parquet` that are made at a time."""


@dataclass(frozen=True)
class TraceRun(Run[Unit]):
    """A trace run that exists."""

    resumed_by = "dqf trace resume"
    schema = SCORES

    @cached_property
    def plan(self) -> TracePlan:
        """The plan."""
        return self._field("plan", TracePlan)

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """The components that are traced."""
        return self._field("components", tuple[Component, ...])

    @cached_property
    def units(self) -> Units:
        """The units, in the plan's order."""
        names = names_by_part(self.components)
        return plan_units(self.plan, names=names, steps=self._field("steps", int))

    @cached_property
    def unit_ids(self) -> UnitIds:
        """The units' ids, in the plan's order."""
        manifest = self.manifest
        return self.units.ids(model_hash=manifest.model_hash, scorer_hash=manifest.scorer_hash)

    @property
    def chunk_units(self) -> int:
        """Units that are committed together."""
        return self.plan.chunk_units

    def complete(self) -> None:
        """Write those of the run's tables that are not there."""
        write_tables(self)


def open_run(location: str | Path) -> TraceRun:
    """Return the run at `location`.

    StoreError: there is none, or its tables are of another version of dqf.
    """
    run = TraceRun(open_storage(str(location)))
    try:
        version = run._document.get("schema_version", "1 or 2")
    except FileNotFoundError:
        raise StoreError(f"no run at {location}: `dqf trace submit --run NAME` makes one") from None
    if version != SCHEMA_VERSION:
        commit = run._document.get("manifest", {}).get("git_commit")
        raise StoreError(
            f"run {location} has tables of version {version}, this dqf reads {SCHEMA_VERSION}: "
            f"read it with the dqf that traced it{f' (commit {commit})' if commit else ''}, or "
            "trace it again under another --run"
        )
    return run


def create_run(
    location: str | Path,
    plan: TracePlan,
    manifest: Manifest,
    components: Sequence[Component],
    *,
    steps: int,
) -> TraceRun:
    """Make a new run and return it, or the one that somebody else made there meanwhile.

    StoreError: it cannot be written.
    """
    document = {
        "schema_version": SCHEMA_VERSION,
        "plan": plan,
        "manifest": manifest,
        "components": components,
        "steps": steps,
    }
    storage = open_storage(str(location))
    storage.create(PLAN, to_json(document, indent=1) + b"\n")
    run = open_run(location)
    write_tables(run)
    return run


def write_tables(run: TraceRun) -> None:
    """Write those of the run's tables that are not there."""
    for name, table in small_tables(run).items():
        if not run.storage.exists(name):
            run.storage.create(name, _parquet(table()))
    for name in (EMPTY_PART, EMPTY_PACK):
        if not run.storage.exists(name):
            run.storage.create(name, write_part([], run_id=run.id, schema=run.schema))
    _check_plan_is_the_runs(run)
    if not run.storage.exists("units.parquet"):
        run.storage.create("units.parquet", _units(run))


def small_tables(run: TraceRun) -> dict[str, Callable[[], pa.Table]]:
    """Return what makes each table but the units', by file name."""
    return {
        "captions.parquet": lambda: pa.Table.from_pylist(_caption_rows(run), schema=CAPTIONS),
        "slabs.parquet": lambda: pa.Table.from_pylist(_slab_rows(run), schema=SLABS),
        "components.parquet": lambda: pa.Table.from_pylist(_component_rows(run), schema=COMPONENTS),
    }


def _check_plan_is_the_runs(run: TraceRun) -> None:
    """Raise StoreError if the plan is not the one that the run's files were made by."""
    try:
        read_part(run.storage.read(EMPTY_PART), EMPTY_PART, run_id=run.id, schema=run.schema)
    except CorruptPart as error:
        raise StoreError(
            f"{run.location}/{PLAN} is not the one that the run was made with: put that back, or "
            "trace this one under another --run"
        ) from error


def _parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    return file.getvalue()


def _caption_rows(run: TraceRun) -> list[dict]:
    return [{"caption_id": caption.id, **caption.model_dump()} for caption in run.plan.captions]


def _component_rows(run: TraceRun) -> list[dict]:
    return [
        {
            "component": component.name,
            "part": component.part.value,
            "kind": component.kind.value,
            "network_order": component.order,
            "layer": component.layer,
            "num_parameters": component.num_parameters,
        }
        for component in run.components
    ]


def _slab_rows(run: TraceRun) -> list[dict]:
    return [
        {
            "slab": number,
            "part": slab.part.value,
            "components": slab.components,
            "windows": [f"{start}:{stop}" for start, stop in slab.windows],
        }
        for number, slab in enumerate(run.units.slabs)
    ]


def _units(run: TraceRun) -> bytes:
    """Return `units.parquet`, made a batch of rows at a time."""
    file = io.BytesIO()
    with pq.ParquetWriter(file, UNITS, compression="zstd", write_page_checksum=True) as writer:
        for start in range(0, len(run.units), BATCH_UNITS):
            stop = min(start + BATCH_UNITS, len(run.units))
            writer.write_batch(units_batch(run, range(start, stop)))
    return file.getvalue()


def units_batch(run: TraceRun, ordinals: Sequence[int]) -> pa.RecordBatch:
    """Return the rows of units by their places in the plan's order."""
    ids, plan = run.unit_ids, run.plan
    places = run.units.places(ordinals)
    captions, seeds, draws, slabs = zip(*places, strict=True)
    columns = {
        "ordinal": list(ordinals),
        "unit_id": list(starmap(ids.at, places)),
        "chunk": [ordinal // plan.chunk_units for ordinal in ordinals],
        "caption_id": [ids.captions[caption] for caption in captions],
        "seed": [plan.seeds[seed] for seed in seeds],
        "draw": draws,
        "slab": slabs,
    }
    return pa.RecordBatch.from_pydict(columns, schema=UNITS)
