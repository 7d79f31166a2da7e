"""A run: its plan, written once, and all that follows from the plan alone.

`plan.json` is the run. Whoever creates it first has made the run; the other tables follow from it
and are written by whoever finds them missing. What is done is a listing; nothing else records it.
"""

import io
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import to_json

from jobs.parts import (
    EMPTY_PACK,
    EMPTY_PART,
    GROUP_CHUNKS,
    Commit,
    CorruptPart,
    Failure,
    Live,
    PartContent,
    live_parts,
    pack_name,
    part_name,
    read_commits,
    read_part,
    write_part,
)
from jobs.storage import Storage, open_storage
from schemas.component import Component, Kind, Part, names_by_part
from schemas.errors import StoreError
from schemas.plan import TracePlan, Unit, UnitIds, Units, content_id, plan_units
from schemas.tables import CAPTIONS, COMPONENTS, SCHEMA_VERSION, SCORES, SLABS, UNITS

PLAN = "plan.json"
RELISTS = 5
"""How often a reader lists the parts anew because some were packed under it."""
BATCH_UNITS = 2**16
"""Rows of `units.parquet` that are made at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Where a run's numbers come from, besides its plan."""

    model_hash: str
    scorer_hash: str
    versions: dict[str, str]
    code_hash: str
    git_commit: str
    created: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a worker does in one call: a chunk, or what had failed in it one generation before."""

    chunk: int
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRow:
    """A unit and its id."""

    unit_id: str
    unit: Unit


@dataclass(frozen=True)
class Run:
    """A run that exists."""

    storage: Storage

    @property
    def location(self) -> str:
        """The folder or URL that opens the run from anywhere."""
        return self.storage.location

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.location.rstrip("/").rpartition("/")[2]

    @cached_property
    def _content(self) -> bytes:
        return self.storage.read(PLAN)

    @cached_property
    def _document(self) -> dict[str, Any]:
        return json.loads(self._content)

    @cached_property
    def id(self) -> str:
        """Content hash of the plan, which every part of the run carries."""
        return content_id(self._content.decode())

    @cached_property
    def plan(self) -> TracePlan:
        """The plan."""
        return TracePlan.model_validate(self._document["plan"])

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest."""
        return Manifest(**self._document["manifest"])

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """The components that are traced."""
        return tuple(
            Component(**{**fields, "part": Part(fields["part"]), "kind": Kind(fields["kind"])})
            for fields in self._document["components"]
        )

    @cached_property
    def units(self) -> Units:
        """The units, in the plan's order."""
        names = names_by_part(self.components)
        return plan_units(self.plan, names=names, steps=self._document["steps"])

    @cached_property
    def unit_ids(self) -> UnitIds:
        """The units' ids, in the plan's order."""
        manifest = self.manifest
        return self.units.ids(model_hash=manifest.model_hash, scorer_hash=manifest.scorer_hash)

    @property
    def num_chunks(self) -> int:
        """The number of chunks planned."""
        return -(-len(self.units) // self.plan.chunk_units)

    def ordinals(self, chunk: int) -> range:
        """Return the places of a chunk's units in the plan's order."""
        size = self.plan.chunk_units
        return range(chunk * size, min((chunk + 1) * size, len(self.units)))

    def unit_rows(self, task: Task) -> list[UnitRow]:
        """Return the units of a task, in order."""
        rows = [
            UnitRow(unit_id=self.unit_ids[ordinal], unit=self.units[ordinal])
            for ordinal in self.ordinals(task.chunk)
        ]
        if task.generation == 0:
            return rows
        before = part_name(task.chunk, task.generation - 1)
        failed = {failure.unit_id for failure in self._commit_of(before, task.chunk).failures}
        return [row for row in rows if row.unit_id in failed]

    def _commit_of(self, name: str, chunk: int) -> Commit:
        """Return what was committed of a chunk by a part, or by the pack that it went into."""
        try:
            (path,) = self.storage.local([name])
        except FileNotFoundError:
            (path,) = self.storage.local([pack_name(chunk // GROUP_CHUNKS)])
        commits = read_commits(path, run_id=self.id)
        return next(commit for commit in commits if commit.chunk == chunk)

    def live(self) -> Live:
        """Return the parts that count now."""
        return live_parts(self.storage)

    def done_chunks(self) -> set[int]:
        """Return the numbers of the committed chunks."""
        live = self.live()
        return {chunk for chunk in range(self.num_chunks) if live.has(chunk)}

    def is_done(self, task: Task) -> bool:
        """Return whether a task is committed, by looking for its own files alone."""
        return self.storage.exists(part_name(task.chunk, task.generation)) or (
            task.generation == 0 and self.storage.exists(pack_name(task.chunk // GROUP_CHUNKS))
        )

    def commit(
        self, task: Task, rows: Sequence[dict], failures: Sequence[Failure], *, units: int
    ) -> bool:
        """Publish a task's scores and failures; False if another writer had published it."""
        commit = Commit(
            chunk=task.chunk,
            generation=task.generation,
            units=units,
            failures=tuple(failures),
        )
        table = pa.Table.from_pylist(list(rows), schema=SCORES)
        content = write_part([PartContent(table=table, commits=(commit,))], run_id=self.id)
        return self.storage.create(part_name(task.chunk, task.generation), content)

    def commits(self) -> list[Commit]:
        """Return what is committed of every chunk: its latest generation."""
        latest: dict[int, Commit] = {}
        for commit in self._all_commits():
            known = latest.get(commit.chunk)
            if known is None or commit.generation > known.generation:
                latest[commit.chunk] = commit
        return [latest[chunk] for chunk in sorted(latest)]

    def _all_commits(self) -> list[Commit]:
        """Return what the live parts commit; they are listed anew if some are packed meanwhile."""
        for _ in range(RELISTS):
            with suppress(FileNotFoundError):
                paths = self.storage.local(self.live().names)
                return [commit for path in paths for commit in read_commits(path, run_id=self.id)]
        raise StoreError(f"run {self.location} is not whole: `dqf trace resume` completes it")

    def failures(self) -> list[Failure]:
        """Return the units that have failed and not been scored since."""
        return [failure for commit in self.commits() for failure in commit.failures]

    def quarantine(self, name: str) -> None:
        """Move a damaged part away: its chunk counts as not done."""
        flat = name.replace("/", ".")
        self.storage.move(name, f"quarantine/{flat}.{time.time_ns()}")


def open_run(location: str | Path) -> Run:
    """Return the run at `location`.

    StoreError: there is none, or its tables are of another version of dqf.
    """
    run = Run(open_storage(str(location)))
    try:
        version = run._document.get("schema_version", "1 or 2")
    except FileNotFoundError:
        raise StoreError(f"no run at {location}: `dqf trace submit --run NAME` makes one") from None
    except ValueError as error:
        raise StoreError(f"{location}/{PLAN} is damaged: {error}") from error
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"run {location} has tables of version {version}, this dqf reads {SCHEMA_VERSION}: "
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
) -> Run:
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


def write_tables(run: Run) -> None:
    """Write those of the run's tables that are not there."""
    for name, table in small_tables(run).items():
        if not run.storage.exists(name):
            run.storage.create(name, _parquet(table()))
    for name in (EMPTY_PART, EMPTY_PACK):
        if not run.storage.exists(name):
            run.storage.create(name, write_part([], run_id=run.id))
    _check_plan_is_the_runs(run)
    if not run.storage.exists("units.parquet"):
        run.storage.create("units.parquet", _units(run))


def small_tables(run: Run) -> dict[str, Callable[[], pa.Table]]:
    """Return what makes each table but the units', by file name."""
    return {
        "captions.parquet": lambda: pa.Table.from_pylist(_caption_rows(run), schema=CAPTIONS),
        "slabs.parquet": lambda: pa.Table.from_pylist(_slab_rows(run), schema=SLABS),
        "components.parquet": lambda: pa.Table.from_pylist(_component_rows(run), schema=COMPONENTS),
    }


def _check_plan_is_the_runs(run: Run) -> None:
    """Raise StoreError if the plan is not the one that the run's files were made by."""
    try:
        read_part(run.storage.read(EMPTY_PART), EMPTY_PART, run_id=run.id)
    except CorruptPart as error:
        raise StoreError(
            f"{run.location}/{PLAN} is not the one that the run was made with: put that back, or "
            "trace this one under another --run"
        ) from error


def _parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    return file.getvalue()


def _caption_rows(run: Run) -> list[dict]:
    return [{"caption_id": caption.id, **caption.model_dump()} for caption in run.plan.captions]


def _component_rows(run: Run) -> list[dict]:
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


def _slab_rows(run: Run) -> list[dict]:
    return [
        {
            "slab": number,
            "part": slab.part.value,
            "components": slab.components,
            "windows": [f"{start}:{stop}" for start, stop in slab.windows],
        }
        for number, slab in enumerate(run.units.slabs)
    ]


def _units(run: Run) -> bytes:
    """Return `units.parquet`, made a batch of rows at a time."""
    file = io.BytesIO()
    with pq.ParquetWriter(file, UNITS, compression="zstd", write_page_checksum=True) as writer:
        for start in range(0, len(run.units), BATCH_UNITS):
            stop = min(start + BATCH_UNITS, len(run.units))
            writer.write_batch(units_batch(run, range(start, stop)))
    return file.getvalue()


def units_batch(run: Run, ordinals: Sequence[int]) -> pa.RecordBatch:
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
