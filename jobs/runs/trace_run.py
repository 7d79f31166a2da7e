"""A run: its plan, written once, and all that follows from the plan alone.

`plan.json` is the run. The process that creates it first has made the run; the other tables follow
from it and are written by any process that finds them missing.
"""

# pyright: reportUnknownMemberType=false
# pyarrow leaves parts of some methods without types.

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.runs.opening import create_as, open_as
from jobs.runs.parts import RUN_KEY, WRITTEN
from jobs.runs.provenance import Manifest
from jobs.runs.run import Row, Run
from schemas.component import Component, names_by_part
from schemas.component_set import ComponentSet
from schemas.plan import TracePlan
from schemas.tables import CAPTIONS, COMPONENTS, SCHEMA_VERSION, SCORES, SLABS, UNITS
from schemas.unit import Unit, UnitIds, Units, plan_units

BATCH_UNITS = 2**16
"""Rows of `units.parquet` that are made at a time."""


@dataclass(frozen=True)
class TraceRun(Run[Unit]):
    """A trace run that exists."""

    noun = "run"
    made_by = "dqf trace submit --run NAME"
    named_by = "--run"
    version_field = "schema_version"
    reads_version = SCHEMA_VERSION
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
    def sets(self) -> tuple[ComponentSet, ...]:
        """The sets that are traced."""
        return self._field("sets", tuple[ComponentSet, ...]) if self.plan.sets else ()

    @cached_property
    def units(self) -> Units:
        """The units, in the plan's order."""
        names = names_by_part(self.components)
        steps = self._field("steps", int)
        return plan_units(self.plan, names=names, steps=steps, sets=self.sets)

    @cached_property
    def unit_ids(self) -> UnitIds:
        """The units' ids, in the plan's order."""
        manifest = self.manifest
        return self.units.ids(model_hash=manifest.model_hash, scorer_hash=manifest.scorer_hash)

    def resume_hint(self, *options: str) -> str:
        """Return the command that continues the run, in backticks."""
        return f"`dqf trace resume {' '.join([self.argument, *options])}`"

    def tables(self) -> Mapping[str, Callable[[], bytes]]:
        """Return the functions that make the tables of captions, slabs, components and units."""
        return {
            **{name: partial(_content, self, table) for name, table in small_tables(self).items()},
            "units.parquet": partial(_units, self),
        }

    def shapes(self) -> Mapping[str, tuple[pa.Schema, int]]:
        """Return the columns and the number of rows of each of these tables."""
        return {
            "captions.parquet": (CAPTIONS, len(self.plan.captions)),
            "slabs.parquet": (SLABS, len(self.units.slabs)),
            "components.parquet": (COMPONENTS, len(self.components)),
            "units.parquet": (UNITS, len(self.units)),
        }


def open_run(location: str | Path) -> TraceRun:
    """Return the run at `location`.

    StoreError: there is none, or its tables are of another version of dqf.
    """
    return open_as(TraceRun, location)


def create_run(
    location: str | Path,
    plan: TracePlan,
    manifest: Manifest,
    components: Sequence[Component],
    *,
    steps: int,
    sets: Sequence[ComponentSet] = (),
) -> TraceRun:
    """Make a run, unless one of the same plan exists, and return it; StoreError as `create_as`."""
    fields: dict[str, object] = {"components": components, "steps": steps}
    if sets:
        fields["sets"] = sets
    return create_as(TraceRun, location, plan, manifest, **fields)


def small_tables(run: TraceRun) -> dict[str, Callable[[], pa.Table]]:
    """Return the functions that make each table but that of units, by file name."""
    return {
        "captions.parquet": lambda: pa.Table.from_pylist(_caption_rows(run), schema=CAPTIONS),
        "slabs.parquet": lambda: pa.Table.from_pylist(_slab_rows(run), schema=SLABS),
        "components.parquet": lambda: pa.Table.from_pylist(_component_rows(run), schema=COMPONENTS),
    }


def _content(run: TraceRun, table: Callable[[], pa.Table]) -> bytes:
    file, rows = io.BytesIO(), table()
    with _writer(run, file, rows.schema) as writer:
        writer.write_table(rows)
    return file.getvalue()


def _writer(run: TraceRun, file: io.BytesIO, schema: pa.Schema) -> pq.ParquetWriter:
    """Return the writer of a table, whose footer names the run."""
    writer = pq.ParquetWriter(file, schema, **WRITTEN)
    writer.add_key_value_metadata({RUN_KEY.decode(): run.id})
    return writer


def _caption_rows(run: TraceRun) -> list[Row]:
    return [{"caption_id": caption.id, **caption.model_dump()} for caption in run.plan.captions]


def _component_rows(run: TraceRun) -> list[Row]:
    return [
        {
            "component": component.name,
            "part": component.part.value,
            "kind": component.kind.value,
            "network_order": component.order,
            "layer": component.layer,
            "num_parameters": component.num_parameters,
            "has_contribution": component.has_contribution,
            "is_cut_point": component.is_cut_point,
        }
        for component in run.components
    ]


def _slab_rows(run: TraceRun) -> list[Row]:
    return [
        {
            "slab": number,
            "part": slab.part.value,
            "components": slab.names,
            "windows": [f"{start}:{stop}" for start, stop in slab.windows],
        }
        for number, slab in enumerate(run.units.slabs)
    ]


def _units(run: TraceRun) -> bytes:
    """Return `units.parquet`, made a batch of rows at a time."""
    file = io.BytesIO()
    with _writer(run, file, UNITS) as writer:
        for start in range(0, len(run.units), BATCH_UNITS):
            stop = min(start + BATCH_UNITS, len(run.units))
            writer.write_batch(units_batch(run, range(start, stop)))
    return file.getvalue()


def units_batch(run: TraceRun, ordinals: Sequence[int]) -> pa.RecordBatch:
    """Return the rows of units by their places in the plan's order."""
    ids, plan = run.unit_ids, run.plan
    places = run.units.places(ordinals)
    captions, seeds, draws, noises, slabs = zip(*places, strict=True)
    columns: dict[str, list[Any]] = {
        "ordinal": list(ordinals),
        "unit_id": [ids.at(*place) for place in places],
        "chunk": [ordinal // plan.chunk_units for ordinal in ordinals],
        "caption_id": [ids.captions[caption] for caption in captions],
        "seed": [plan.seeds[seed] for seed in seeds],
        "draw": list(draws),
        "noise_sigmas": [plan.numerics.sweep[noise] for noise in noises],
        "slab": list(slabs),
    }
    return pa.RecordBatch.from_pydict(columns, schema=UNITS)
