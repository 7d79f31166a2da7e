"""A run's folder: the plan, its units and the committed scores, each exactly once.

A chunk is committed as one Parquet file of deterministic name, published by link(2): the first
writer wins and every later one drops its copy. Failed units are listed in the same file's footer.
What is done is a listing; nothing else records it.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.component import Component, Part
from schemas.errors import StoreError
from schemas.plan import Caption, TracePlan, Unit, unit_id
from schemas.tables import COMPONENTS, SCHEMA_VERSION, SCORES, UNITS, VERSION_KEY
from schemas.views import FAILURES_KEY
from schemas.window import Window

EMPTY_PART = "empty.parquet"
"""A part without rows, so that a run can be queried before its first chunk."""
LEFTOVER_AGE_S = 3600.0
"""A writer holds its temporary file for milliseconds; one this old has no writer any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Where a run's numbers come from, besides its plan."""

    model_hash: str
    scorer_hash: str
    versions: dict[str, str]
    git_commit: str
    created: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A unit that could not be scored, and why."""

    unit_id: str
    error: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Run:
    """A run's folder that exists."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def plan(self) -> TracePlan:
        """Return the plan."""
        return TracePlan.model_validate(self._document()["plan"])

    def manifest(self) -> Manifest:
        """Return the manifest."""
        return Manifest(**self._document()["manifest"])

    def _document(self) -> dict:
        return json.loads((self.path / "plan.json").read_text())

    def unit_rows(self, chunk: int | None = None) -> list[dict]:
        """Return the units' rows, all or those of one chunk, in order."""
        filters = None if chunk is None else [("chunk", "=", chunk)]
        return pq.read_table(self.path / "units.parquet", filters=filters).to_pylist()

    def num_chunks(self) -> int:
        """Return the number of chunks planned."""
        chunks = pq.read_table(self.path / "units.parquet", columns=["chunk"])["chunk"]
        return chunks[-1].as_py() + 1

    def parts(self) -> list[Path]:
        """Return the committed parts, the empty one included."""
        return sorted((self.path / "parts").glob("*.parquet"))

    def done_chunks(self) -> set[int]:
        """Return the numbers of the committed chunks."""
        return {int(part.stem[1:]) for part in self.parts() if part.name != EMPTY_PART}

    def commit(self, chunk: int, rows: Sequence[dict], failures: Sequence[Failure]) -> bool:
        """Publish a chunk's scores and failures; False if another writer had published it."""
        footer = {FAILURES_KEY: json.dumps([asdict(failure) for failure in failures])}
        table = pa.Table.from_pylist(list(rows), schema=SCORES)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **footer})
        return publish(self.path / "parts" / f"c{chunk:08d}.parquet", table)

    def remove_leftovers(self) -> None:
        """Remove temporary files that a killed writer left; a live one's are younger."""
        for file in (self.path / "parts").glob(".*.parquet.*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > LEFTOVER_AGE_S:
                    file.unlink()

    def failures(self) -> list[Failure]:
        """Return the failures recorded in all parts."""
        footers = [pq.read_schema(part).metadata or {} for part in self.parts()]
        return [
            Failure(**failure)
            for footer in footers
            for failure in json.loads(footer.get(FAILURES_KEY.encode(), b"[]"))
        ]


def open_run(path: Path) -> Run:
    """Return the run at `path`; StoreError if there is none or its tables are another version's."""
    if not (path / "plan.json").is_file():
        raise StoreError(f"no run at {path}: `dqf trace submit --run NAME` makes one")
    metadata = pq.read_schema(path / "parts" / EMPTY_PART).metadata or {}
    version = int(metadata.get(VERSION_KEY, 0))
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"run {path} has tables of version {version}, this dqf reads {SCHEMA_VERSION}: "
            "trace it again under another --run"
        )
    return Run(path)


def create_run(
    path: Path,
    plan: TracePlan,
    manifest: Manifest,
    components: Sequence[Component],
    units: Iterable[Unit],
) -> Run:
    """Write a new run's folder, all of it or nothing; StoreError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise StoreError(
            f"cannot write {path.parent}: {error.strerror}; choose another --run"
        ) from error
    try:
        work.chmod(0o755)
        (work / "parts").mkdir()
        document = {"plan": plan.model_dump(mode="json"), "manifest": asdict(manifest)}
        (work / "plan.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        pq.write_table(_units_table(units, plan, manifest), work / "units.parquet")
        pq.write_table(_components_table(components), work / "components.parquet")
        pq.write_table(SCORES.empty_table(), work / "parts" / EMPTY_PART)
        work.rename(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Run(path)


def unit_of(row: dict, plan: TracePlan) -> Unit:
    """Return the unit of `plan` that a row of `units.parquet` describes."""
    return Unit(
        caption=Caption(**{field: row[field] for field in Caption.model_fields}),
        seed=row["seed"],
        draw=row["draw"],
        part=Part(row["part"]),
        components=tuple(row["components"]),
        windows=tuple(_window(text) for text in row["windows"]),
        tokens=plan.tokens,
        interventions=plan.interventions,
        references=plan.references,
    )


def _window(text: str) -> Window:
    start, stop = text.split(":")
    return int(start), int(stop)


def _units_table(units: Iterable[Unit], plan: TracePlan, manifest: Manifest) -> pa.Table:
    rows = [
        {
            "ordinal": ordinal,
            "unit_id": unit_id(
                unit,
                model_hash=manifest.model_hash,
                scorer_hash=manifest.scorer_hash,
                numerics=plan.numerics,
                scores=plan.scores,
            ),
            "chunk": ordinal // plan.chunk_units,
            "caption_id": unit.caption.id,
            **unit.caption.model_dump(),
            "seed": unit.seed,
            "draw": unit.draw,
            "part": unit.part.value,
            "components": list(unit.components),
            "windows": [f"{start}:{stop}" for start, stop in unit.windows],
        }
        for ordinal, unit in enumerate(units)
    ]
    return pa.Table.from_pylist(rows, schema=UNITS)


def _components_table(components: Sequence[Component]) -> pa.Table:
    rows = [
        {
            "component": component.name,
            "part": component.part.value,
            "kind": component.kind.value,
            "network_order": component.order,
            "layer": component.layer,
            "num_parameters": component.num_parameters,
        }
        for component in components
    ]
    return pa.Table.from_pylist(rows, schema=COMPONENTS)


def publish(path: Path, table: pa.Table) -> bool:
    """Write `table` to `path` unless it exists: durable, atomic, first writer wins."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    finally:
        os.unlink(temporary)
    _sync_folder(path.parent)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
