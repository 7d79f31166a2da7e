"""A run of any kind: units of work in chunks, each committed once, whatever happens to workers.

`plan.json` is the run. Units and their rows follow from the plan; the kinds of run differ in
nothing else. A listing of the files is the only record of finished work.
"""

import shlex
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import pyarrow as pa

from jobs.runs.parts import (
    EMPTY_PACK,
    EMPTY_PART,
    GROUP_CHUNKS,
    Commit,
    CorruptPart,
    Failure,
    Live,
    PartContent,
    check_part,
    check_table,
    live_parts,
    pack_name,
    part_name,
    read_commits,
    read_part,
    write_part,
)
from jobs.runs.provenance import Manifest
from jobs.runs.storage.interface import Storage
from schemas.content_id import content_id
from schemas.documents import is_mapping, parsed, read_json
from schemas.errors import StoreError
from schemas.printable import shown

PLAN = "plan.json"
RELISTS = 5
"""Times that a reader lists the parts again because some were packed meanwhile."""
Row = Mapping[str, object]
"""A row of a run's table, by column."""
T = TypeVar("T")
U = TypeVar("U", covariant=True)
"""A unit of work."""
V = TypeVar("V", covariant=True)


class Listed(Protocol[V]):
    """A sequence whose items may be made on request."""

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def __getitem__(self, ordinal: int, /) -> V:
        """Return an item by its index."""
        ...


class RunPlan(Protocol):
    """Methods that the plans of all kinds of run share: pydantic models, written once."""

    model: str
    scorer: str
    chunk_units: int

    def model_dump(self) -> dict[str, Any]:
        """Return its fields."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The work of one call: a chunk, or its units that failed one generation before."""

    chunk: int
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifiedUnit(Generic[U]):
    """A unit and its id."""

    unit_id: str
    unit: U


@dataclass(frozen=True)
class Run(Generic[U]):
    """A run that exists."""

    storage: Storage
    noun: ClassVar[str]
    """Word for a run of this kind in messages."""
    made_by: ClassVar[str]
    """The command that makes a run of this kind."""
    named_by: ClassVar[str]
    """The option that says where it is."""
    version_field: ClassVar[str]
    """The field of the plan's document that holds the version of its tables."""
    reads_version: ClassVar[int]
    schema: ClassVar[pa.Schema]
    """The columns of a unit's rows."""

    @cached_property
    def plan(self) -> "RunPlan":
        """The plan; each kind of run has its own, as it has units and ids."""
        raise NotImplementedError

    @cached_property
    def units(self) -> Listed[U]:
        """The units, in the plan's order."""
        raise NotImplementedError

    @cached_property
    def unit_ids(self) -> Listed[str]:
        """The units' ids, in the plan's order."""
        raise NotImplementedError

    def tables(self) -> Mapping[str, Callable[[], bytes]]:
        """Return the functions that make the files that follow from the plan, by name."""
        return {}

    def shapes(self) -> Mapping[str, tuple[pa.Schema, int]]:
        """Return the columns and the number of rows of each of these tables."""
        return {}

    def complete(self) -> None:
        """Write the missing files that follow from the plan.

        StoreError: the plan is not the one that the run's files were made by.
        """
        empty = partial(write_part, [], run_id=self.id, schema=self.schema)
        self._write({EMPTY_PART: empty, EMPTY_PACK: empty})
        try:
            content = self.storage.read(EMPTY_PART)
            read_part(content, EMPTY_PART, run_id=self.id, schema=self.schema)
        except CorruptPart as error:
            raise StoreError(
                f"{self.location}/{PLAN} is not the one that the {self.noun} was made with: put "
                f"that back, or choose another {self.named_by}"
            ) from error
        self._write(self.tables())

    def _write(self, files: Mapping[str, Callable[[], bytes]]) -> None:
        for name, content in files.items():
            if not self.storage.exists(name):
                self.storage.create(name, content())

    @property
    def argument(self) -> str:
        """The location as a word of a shell's command line."""
        return shlex.quote(self.location)

    def resume_hint(self, *options: str) -> str:
        """Return the command that continues the run, in backticks, and what else it takes."""
        return f"`{' '.join([self.made_by, *options])}` with the same options"

    @property
    def repair_hint(self) -> str:
        """The end of a sentence on a damaged file."""
        return f"`dqf doctor {self.argument} --repair` puts it right"

    @property
    def chunk_units(self) -> int:
        """Units that are committed together."""
        return self.plan.chunk_units

    @property
    def version(self) -> object:
        """The version of the run's tables; None where its plan has none of this kind."""
        return self._document.get(self.version_field)

    @property
    def git_commit(self) -> object:
        """The commit of the code that made the run, also of a version that is not read."""
        manifest = self._document.get("manifest")
        return manifest.get("git_commit") if is_mapping(manifest) else None

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
    def _document(self) -> Mapping[str, object]:
        path = f"{self.location}/{PLAN}"
        document = read_json(self._content, path, error=StoreError)
        if not is_mapping(document):
            raise StoreError(f"{path} is not a plan of a run: {shown(document)}")
        return document

    def _field(self, name: str, kind: type[T]) -> T:
        """Return a field of the plan's document; StoreError if it is missing or damaged."""
        where = f"{self.location}/{PLAN}, field {name!r}"
        return parsed(kind, self._document.get(name), where, error=StoreError)

    @cached_property
    def id(self) -> str:
        """Content hash of the plan, which every part of the run carries."""
        return content_id(self._content.decode())

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest."""
        return self._field("manifest", Manifest)

    @property
    def num_chunks(self) -> int:
        """The number of chunks planned."""
        return -(-len(self.units) // self.chunk_units)

    def ordinals(self, chunk: int) -> range:
        """Return the places of a chunk's units in the plan's order."""
        size = self.chunk_units
        return range(chunk * size, min((chunk + 1) * size, len(self.units)))

    def unit_rows(self, task: Task) -> Sequence[IdentifiedUnit[U]]:
        """Return the units of a task, in order."""
        rows = [
            IdentifiedUnit(unit_id=self.unit_ids[ordinal], unit=self.units[ordinal])
            for ordinal in self.ordinals(task.chunk)
        ]
        if task.generation == 0:
            return rows
        before = part_name(task.chunk, task.generation - 1)
        failed = {failure.unit_id for failure in self._commit_of(before, task.chunk).failures}
        return [row for row in rows if row.unit_id in failed]

    def _commit_of(self, name: str, chunk: int) -> Commit:
        """Return the commit of a chunk by a part, or by the pack that holds the part."""
        try:
            (path,) = self.storage.local([name])
        except FileNotFoundError:
            name = pack_name(chunk // GROUP_CHUNKS)
            (path,) = self.storage.local([name])
        commits = self._commits_in(path, name)
        return next(commit for commit in commits if commit.chunk == chunk)

    def _commits_in(self, path: Path, name: str) -> tuple[Commit, ...]:
        with self._repairable():
            return read_commits(path, name, run_id=self.id, schema=self.schema)

    def part_paths(self, names: Sequence[str]) -> list[Path]:
        """Return the paths of parts, whose rows may be read.

        CorruptPart: one is another run's or chunk's. FileNotFoundError: one is gone.
        """
        paths = self.storage.local(names)
        with self._repairable():
            for path, name in zip(paths, names, strict=True):
                check_part(path, name, run_id=self.id, schema=self.schema)
        return paths

    def live_paths(self) -> list[Path]:
        """Return the paths of the parts that count now, listed again if some are packed meanwhile.

        StoreError: one is damaged or missing.
        """
        for _ in range(RELISTS):
            with suppress(FileNotFoundError):
                return self.part_paths(self.live().names)
        raise self.not_whole()

    def not_whole(self) -> StoreError:
        """Return the error of a run that lacks a file, with what completes it."""
        return StoreError(
            f"{self.noun} {self.location} is not whole: {self.resume_hint()} completes it"
        )

    def table_paths(self, names: Sequence[str]) -> list[Path]:
        """Return the paths of tables.

        CorruptPart: one is damaged, another run's, or has other columns or more or fewer rows than
        the plan. FileNotFoundError: one is gone.
        """
        paths, shapes = self.storage.local(names), self.shapes()
        with self._repairable():
            for path, name in zip(paths, names, strict=True):
                schema, rows = shapes[name]
                check_table(path, run_id=self.id, schema=schema, rows=rows)
        return paths

    @contextmanager
    def _repairable(self) -> Generator[None]:
        """Add to a CorruptPart what repairs the part."""
        try:
            yield
        except CorruptPart as error:
            raise CorruptPart(f"{error}: {self.repair_hint}") from error

    def live(self) -> Live:
        """Return the parts that count now."""
        return live_parts(self.storage)

    def done_chunks(self) -> set[int]:
        """Return the numbers of the committed chunks."""
        live = self.live()
        return {chunk for chunk in range(self.num_chunks) if live.has(chunk)}

    def is_done(self, task: Task) -> bool:
        """Return whether a task is committed, looking for its own files only."""
        return self.storage.exists(part_name(task.chunk, task.generation)) or (
            task.generation == 0 and self.storage.exists(pack_name(task.chunk // GROUP_CHUNKS))
        )

    def commit(
        self, task: Task, rows: Sequence[Row], failures: Sequence[Failure], *, units: int
    ) -> bool:
        """Publish a task's rows and failures; False if another writer had published it."""
        commit = Commit(
            chunk=task.chunk,
            generation=task.generation,
            units=units,
            failures=tuple(failures),
        )
        table = pa.Table.from_pylist(list(rows), schema=self.schema)
        content = write_part(
            [PartContent(table=table, commits=(commit,))], run_id=self.id, schema=self.schema
        )
        self.check_there()
        return self.storage.create(part_name(task.chunk, task.generation), content)

    def check_there(self) -> None:
        """Raise StoreError if the run was deleted: writing a file would recreate its folder."""
        if not self.storage.exists(PLAN):
            raise StoreError(f"run {self.location} is gone: it was deleted while it was worked on")

    def commits(self) -> list[Commit]:
        """Return the latest commit of every chunk."""
        latest: dict[int, Commit] = {}
        for commit in self._all_commits():
            known = latest.get(commit.chunk)
            if known is None or commit.generation > known.generation:
                latest[commit.chunk] = commit
        return [latest[chunk] for chunk in sorted(latest)]

    def _all_commits(self) -> list[Commit]:
        """Return the commits of the live parts, which are listed again if some are packed
        meanwhile."""
        for _ in range(RELISTS):
            with suppress(FileNotFoundError):
                names = self.live().names
                paths = zip(self.storage.local(names), names, strict=True)
                return [commit for part in paths for commit in self._commits_in(*part)]
        raise self.not_whole()

    def failures(self) -> list[Failure]:
        """Return the failed units that have not been scored since."""
        return [failure for commit in self.commits() for failure in commit.failures]

    def quarantine(self, name: str) -> None:
        """Move a damaged part away: its chunk counts as not done."""
        flat = name.replace("/", ".")
        self.storage.move(name, f"quarantine/{flat}.{time.time_ns()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDone:
    """The outcome of a committed task."""

    units: int
    errors: tuple[str, ...] = ()
    """The name of the error of each unit that failed."""
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """The number of units that failed."""
        return len(self.errors)
