"""Auditing a run's parts: every file is intact and of this run, and every score is there once.

Files are read one at a time, group of chunks by group of chunks. A unit belongs to one chunk, and a
later generation may try only the units that failed in the generation before. Where that holds and
no file repeats a score, no two files hold the same score.
"""

# pyright: reportUnknownMemberType=false
# pyarrow leaves parts of some methods without types.

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.doctor.findings import Fault
from jobs.query.rules import ExpectedUnit, Scored, not_finite, odd_rows, rules_of, scored_units
from jobs.runs.packs import group_chunks
from jobs.runs.parts import (
    GROUP_CHUNKS,
    NOT_PARQUET,
    RUN_KEY,
    Commit,
    CorruptPart,
    Live,
    PartContent,
    read_part,
)
from jobs.runs.run import Run, Task
from jobs.runs.storage.local import LocalStorage
from schemas.errors import first_line
from schemas.views import exactly, read_parquet


@dataclass(slots=True, kw_only=True)
class Audit:
    """The counts and faults of an audit so far."""

    num_files: int = 0
    gone: int = 0
    """Files that another process packed or moved before this one could read them."""
    faults: list[Fault] = field(default_factory=list[Fault])
    run_ids: Counter[str] = field(default_factory=Counter[str])
    """The number of files that carry each run's id."""
    scored: int = 0
    failed: int = 0
    """Units in files without a fault."""
    num_scores: int = 0
    repeated: int = 0
    """Scores that are there a second time."""
    sizes: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """The numbers of rows that units of a slab have, where the plan does not determine them."""


class PartFile(NamedTuple):
    """A live file and the tasks that it commits according to its name."""

    name: str
    tasks: tuple[Task, ...]


Tried = dict[int, dict[str, ExpectedUnit]]
"""The units that a file should hold, by chunk and id."""


def audit(
    run: Run[Any], connection: duckdb.DuckDBPyConnection, on_file: Callable[[Audit, int], None]
) -> Audit:
    """Return the audit of all parts that count; `on_file` gets it, and the number of files."""
    live = run.live()
    total = len(live.packs) + len(live.parts)
    audited = Audit()
    for files in _groups(run, live):
        group = _Group(run, connection, audited)
        for file in files:
            group.read(file)
            on_file(audited, total)
        audited.failed += sum(len(failed) for _, failed in group.latest.values())
    return audited


def carried_id(content: bytes) -> str | None:
    """Return the id of the run that a part's footer names; None if it names none."""
    try:
        metadata = pq.read_metadata(io.BytesIO(content)).metadata or {}
    except NOT_PARQUET:
        return None
    return metadata.get(RUN_KEY, b"").decode(errors="replace")


def whole_part(run: Run[Any], content: bytes, name: str) -> PartContent:
    """Return a part; CorruptPart if it is damaged, of another run or of another version."""
    part = read_part(content, name, run_id=run.id, schema=run.schema)
    labels = pq.read_metadata(io.BytesIO(content)).metadata or {}
    if not (run.schema.metadata or {}).items() <= labels.items():
        raise CorruptPart(f"{name} has tables of another version")
    return part


@contextmanager
def on_disk(run: Run[Any], name: str, content: bytes) -> Generator[str]:
    """Yield a path that holds a file's content, without any cache between."""
    if isinstance(run.storage, LocalStorage):
        yield str(Path(run.location, name))
        return
    with NamedTemporaryFile(suffix=".parquet") as file:
        file.write(content)
        file.flush()
        yield file.name


def fingerprint(connection: duckdb.DuckDBPyConnection, path: str) -> tuple[object, ...]:
    """Return the number, hash and type of the rows that DuckDB reads in a file.

    CorruptPart: DuckDB reads no rows, or would pass over some. A footer has no checksum, and DuckDB
    accepts fewer damaged footers than Arrow does.
    """
    try:
        found = _fingerprint_of(connection, read_parquet([exactly(path)]))
    except duckdb.Error as error:
        raise CorruptPart(f"cannot be read by DuckDB: {first_line(error)}") from error
    if not _is_bounded(path):
        raise CorruptPart("has a damaged footer: values are outside the bounds of their columns")
    return found


def _is_bounded(path: str) -> bool:
    """Return whether the bounds of columns that a file has, as older ones do, hold its values."""
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            bounds = {
                column.path_in_schema: column.statistics
                for column in map(group.column, range(group.num_columns))
                if column.statistics and "." not in column.path_in_schema
            }
            rows = file.read_row_group(number, columns=[*bounds]) if bounds else pa.table({})
            if not all(_holds(bounds[name], rows[name]) for name in rows.column_names):
                return False
    return True


def _holds(bounds: pq.Statistics, column: "pa.ChunkedArray[Any]") -> bool:
    if bounds.null_count not in (None, column.null_count):
        return False
    least, most = pc.min(column).as_py(), pc.max(column).as_py()
    if not bounds.has_min_max or least is None:
        return True
    try:
        return bool(bounds.min <= least and most <= bounds.max)
    except (TypeError, ValueError):  # they are of another type, or no UTF-8
        return False


def _fingerprint_of(connection: duckdb.DuckDBPyConnection, rows: str) -> tuple[object, ...]:
    """Return values that differ if the rows do, and do not depend on their order."""
    sql = f"SELECT count(*), sum(hash(r)::HUGEINT), any_value(typeof(r)) FROM {rows} AS r"
    return connection.execute(sql).fetchall()[0]


def _groups(run: Run[Any], live: Live) -> Iterator[list[PartFile]]:
    """Yield the files of each group of chunks: its pack, then its parts, oldest first."""
    groups: dict[int, list[PartFile]] = defaultdict(list)
    for group, name in live.packs.items():
        tasks = tuple(Task(chunk=chunk) for chunk in group_chunks(run, group))
        groups[group].append(PartFile(name, tasks))
    for (chunk, generation), name in sorted(live.parts.items()):
        task = Task(chunk=chunk, generation=generation)
        groups[chunk // GROUP_CHUNKS].append(PartFile(name, (task,)))
    for group in sorted(groups):
        yield groups[group]


class _Group:
    """The audit of a group of chunks."""

    def __init__(
        self, run: Run[Any], connection: duckdb.DuckDBPyConnection, audited: Audit
    ) -> None:
        self._run = run
        self._connection = connection
        self._audited = audited
        self._rules = rules_of(run)
        self._scored: set[str] = set()
        """Units of files without a fault."""
        self._seen: set[str] = set()
        """Units of any file."""
        self._is_torn = False
        """Whether a file of the group was packed or moved since it was listed."""
        self.latest: dict[int, tuple[int, list[str]]] = {}
        """The last generation without a fault of each chunk, and the units that failed in it."""

    def read(self, file: PartFile) -> None:
        """Audit the group's next file."""
        content = self._content(file)
        if content is None:
            self._audited.gone += 1
            return
        self._audited.num_files += 1
        faults = [Fault(check=c, name=file.name, text=t) for c, t in self._faults(file, content)]
        self._audited.faults += faults

    def _content(self, file: PartFile) -> bytes | None:
        """Return a file's content; None if the file, or the generation before it, may be gone."""
        if self._is_torn and any(task.generation for task in file.tasks):
            return None
        try:
            return self._run.storage.read(file.name)
        except FileNotFoundError:
            self._is_torn = True
            return None

    def _faults(self, file: PartFile, content: bytes) -> Iterator[tuple[str, str]]:
        """Yield the check and text of each fault of a file; count its content if it has none."""
        if (run_id := carried_id(content)) is not None:
            self._audited.run_ids[run_id] += 1
        try:
            part = whole_part(self._run, content, file.name)
        except CorruptPart as error:
            yield "parts", first_line(error)
            return
        if wrong := self._unlike(file, content, part.table):
            yield "parts", f"{file.name} {wrong}"
            return
        if wrong := self._misnamed(file, part.commits):
            yield "parts", f"{file.name} {wrong}"
            return
        tried = {task.chunk: self._tried(task) for task in file.tasks}
        units = scored_units(self._connection, self._rules)
        faults = [*self._unit_faults(part.commits, tried, units), *self._row_faults(tried, units)]
        yield from ((check, f"{file.name}: {text}") for check, text in faults)
        self._count(part.commits, units, is_sound=not faults)

    def _unlike(self, file: PartFile, content: bytes, table: pa.Table) -> str:
        """Return how DuckDB, which queries use, reads a file differently from Arrow; or ""."""
        self._connection.register("part", table)
        ours = _fingerprint_of(self._connection, "part")
        try:
            with on_disk(self._run, file.name, content) as path:
                theirs = fingerprint(self._connection, path)
        except CorruptPart as error:
            return str(error)
        return "" if ours == theirs else "has a damaged footer: DuckDB reads other rows in it"

    def _misnamed(self, file: PartFile, commits: tuple[Commit, ...]) -> str:
        """Return how a file's commits contradict its name or lack an earlier generation; or ""."""
        if not file.tasks or file.tasks[0].chunk >= self._run.num_chunks:
            return "belongs to a chunk that the plan does not have"
        committed = [(commit.chunk, commit.generation) for commit in commits]
        if committed != [(task.chunk, task.generation) for task in file.tasks]:
            return f"commits other chunks than its name says: {committed[:3]}"
        for chunk, generation in committed:
            if generation and self.latest.get(chunk, (-1,))[0] != generation - 1:
                return f"tries generation {generation - 1} again, which is missing or damaged"
        return ""

    def _tried(self, task: Task) -> dict[str, ExpectedUnit]:
        """Return the units of a task: a whole chunk, or the units that failed in it before."""
        planned = {
            self._run.unit_ids[ordinal]: self._rules.expected(ordinal)
            for ordinal in self._run.ordinals(task.chunk)
        }
        if task.generation == 0:
            return planned
        return {unit_id: planned[unit_id] for unit_id in self.latest[task.chunk][1]}

    def _unit_faults(
        self, commits: tuple[Commit, ...], tried: Tried, units: list[Scored]
    ) -> Iterator[tuple[str, str]]:
        """Yield how a file's units differ from the tried ones, each of them scored or failed."""
        scored = {unit.unit_id for unit in units}
        strange = scored - {unit_id for planned in tried.values() for unit_id in planned}
        for commit in commits:
            planned = tried[commit.chunk]
            failed = {failure.unit_id for failure in commit.failures}
            strange |= failed - planned.keys()
            missing = [
                unit_id
                for unit_id in planned.keys() - scored - failed
                if planned[unit_id].rows != 0
            ]
            if missing:
                yield "units", f"{len(missing)} units are neither scored nor failed"
            if both := scored & failed:
                yield "units", f"{len(both)} units are both scored and failed"
            size = len(planned) if commit.generation else len(self._run.ordinals(commit.chunk))
            if commit.units != size:
                yield "units", f"commits {commit.units} units of chunk {commit.chunk}, not {size}"
        if strange:
            yield "units", f"{len(strange)} units are not among those to be tried in it"

    def _row_faults(self, tried: Tried, units: list[Scored]) -> Iterator[tuple[str, str]]:
        """Yield how the rows of a file differ from one row for each score of its units."""
        planned = {unit_id: unit for chunk in tried.values() for unit_id, unit in chunk.items()}
        matched = [(unit, planned[unit.unit_id]) for unit in units if unit.unit_id in planned]
        if wrong := sum(unit.labels != plan.labels for unit, plan in matched):
            names = self._rules.labels
            listed = f"{', '.join(names[:-1])} or {names[-1]}"
            yield "units", f"{wrong} units have another {listed}"
        wrong = 0
        for unit, plan in matched:
            if plan.rows is None:
                self._audited.sizes[plan.slab].add(unit.num_scores)
            wrong += plan.rows is not None and unit.num_scores != plan.rows
        if wrong:
            yield "rows", f"{wrong} units have not as many scores as the plan says"
        if odd := odd_rows(self._connection, self._rules):
            yield "rows", f"{odd} rows are not as a worker writes them"
        if unfit := not_finite(self._connection, self._run.schema):
            yield "scores", f"{unfit} scores are not finite"
        if repeated := _repeated(units, self._scored):
            yield "scores", f"{repeated} scores are there already"

    def _count(self, commits: tuple[Commit, ...], units: list[Scored], *, is_sound: bool) -> None:
        audited = self._audited
        audited.num_scores += sum(unit.num_rows for unit in units)
        audited.repeated += _repeated(units, self._seen)
        held = {unit.unit_id for unit in units}
        self._seen |= held
        if not is_sound:
            return
        self._scored |= held
        for commit in commits:
            failed = [failure.unit_id for failure in commit.failures]
            audited.scored += commit.units - len(failed)
            self.latest[commit.chunk] = (commit.generation, failed)


def _repeated(units: list[Scored], before: set[str]) -> int:
    """Return the number of scores that a file repeats, its own or those of earlier files' units."""
    return sum(
        unit.num_rows if unit.unit_id in before else unit.num_rows - unit.num_scores
        for unit in units
    )
