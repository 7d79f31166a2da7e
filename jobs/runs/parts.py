"""Part files: the Parquet files that hold a run's scores, one per chunk, and which of them count.

A part file has a deterministic name, is written once and never changed. Its footer lists the chunks
that it commits and their failed units, so that scores and failures are committed together.
A pack holds the parts of a whole group of chunks; a part whose group has a pack is ignored.
"""

# pyright: reportUnknownMemberType=false
# pyarrow leaves parts of some methods without types.

import errno
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.files import open_regular
from jobs.runs.storage.interface import Storage
from schemas.documents import parsed, read_json
from schemas.errors import StoreError, first_line
from schemas.printable import shown
from schemas.views import COMMITS_KEY

EMPTY_PART = "parts/empty.parquet"
EMPTY_PACK = "packs/empty.parquet"
"""Files without rows, so that a run can be queried before its first chunk and pack."""
GROUP_CHUNKS = 256
"""Chunks of one pack."""
RUN_KEY = b"dqf.run"
"""Key of a part's footer that holds the id of the run it belongs to."""
ROW_GROUP_ROWS = 2**17
WRITTEN: Mapping[str, Any] = {
    "compression": "zstd", "write_page_checksum": True, "write_statistics": False,
}  # fmt: skip
"""How a run's files are written: a footer has no checksum, and by wrong bounds of a column in it
DuckDB would pass over rows without a word."""
TAIL = 2**14
"""Bytes at the end of a part in which most footers are."""
NOT_PARQUET = (pa.ArrowException, OSError, ValueError)
"""Errors of pyarrow on damage; ValueError where a name in the footer is not UTF-8."""
DAMAGED = (*NOT_PARQUET, StoreError)
"""Errors of reading a damaged part: footers have no checksum, and may no longer be JSON."""


def _entry(key: bytes) -> bytes:
    """Return a footer's entry up to the length of its value (Thrift's compact protocol)."""
    return b"\x18" + bytes([len(key)]) + key + b"\x18"


COMMITTED = re.compile(re.escape(_entry(COMMITS_KEY.encode())) + rb"[\x80-\xff]{0,4}[\x00-\x7f]")
"""Pattern of a footer's entry up to the value of its commits (its length: seven bits a byte)."""
NO_ROWS = b"\x16\x00\x19\x0c"
"""Bytes after the columns in an empty file's footer: its 0 rows and its 0 row groups."""
PART_NAME = re.compile(r"parts/c(?P<chunk>\d{8})(\.r(?P<generation>\d{2}))?\.parquet")
PACK_NAME = re.compile(r"packs/g(?P<group>\d{6})\.parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A unit that could not be scored, and why."""

    unit_id: str
    error: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A part's record of a chunk: the number of units that were tried, and those that failed."""

    chunk: int
    generation: int
    """Number of times that the failed units have been tried again."""
    units: int
    failures: tuple[Failure, ...]


class CorruptPart(StoreError):
    """A part that is not whole, or not of this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartContent:
    """Scores, and the commits that belong to them."""

    table: pa.Table
    commits: tuple[Commit, ...]


def part_name(chunk: int, generation: int = 0) -> str:
    """Return the name of a chunk's part."""
    return f"parts/c{chunk:08d}{f'.r{generation:02d}' if generation else ''}.parquet"


def pack_name(group: int) -> str:
    """Return the name of a group's pack."""
    return f"packs/g{group:06d}.parquet"


def write_part(parts: Iterable[PartContent], *, run_id: str, schema: pa.Schema) -> bytes:
    """Return the content of one part that holds `parts`, one after the other."""
    file = io.BytesIO()
    commits: list[Commit] = []
    labeled = schema.with_metadata({**(schema.metadata or {}), RUN_KEY: run_id})
    with pq.ParquetWriter(file, labeled, **WRITTEN) as writer:
        for table in _row_groups(parts, commits):
            writer.write_table(table.cast(labeled))
        described = json.dumps([asdict(commit) for commit in commits])
        writer.add_key_value_metadata({COMMITS_KEY: described})
    return file.getvalue()


def _row_groups(parts: Iterable[PartContent], commits: list[Commit]) -> Iterator[pa.Table]:
    """Yield the parts' tables, small ones together, and collect their commits."""
    waiting: list[pa.Table] = []
    for part in parts:
        commits += part.commits
        waiting.append(part.table)
        if sum(map(len, waiting)) >= ROW_GROUP_ROWS:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def read_part(content: bytes, name: str, *, run_id: str, schema: pa.Schema) -> PartContent:
    """Return a part; CorruptPart if it is cut short, damaged, or another run's."""
    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        table = file.read(use_threads=False)  # parts are too small for threads to pay
        metadata = file.metadata.metadata or {}
        commits = _commits(metadata)
    except DAMAGED as error:
        raise CorruptPart(f"{name} is not a whole Parquet file: {first_line(error)}") from error
    if metadata.get(RUN_KEY) != run_id.encode() or not table.schema.equals(schema):
        raise CorruptPart(f"{name} is not part of this run")
    return PartContent(table=table.replace_schema_metadata(None), commits=commits)


def read_commits(path: Path, name: str, *, run_id: str, schema: pa.Schema) -> tuple[Commit, ...]:
    """Return the commits of the part `name`, from its footer alone.

    CorruptPart: it is damaged, another run's, has other columns, or commits other chunks than its
    name says.
    """
    metadata = _metadata(path)
    labels = metadata.metadata or {}
    try:
        commits = _commits(labels)
    except StoreError as error:
        raise _damaged(path, error) from error
    if labels.get(RUN_KEY) != run_id.encode():
        raise CorruptPart(f"{path} is not part of this run")
    if not _is_named(name, commits):
        raise CorruptPart(f"{path} commits other chunks than its name says")
    _check_columns(path, metadata, schema)
    return commits


def check_part(path: Path, name: str, *, run_id: str, schema: pa.Schema) -> None:
    """Raise CorruptPart as `read_commits`, at a fifth of its time for a sound part.

    Rows are counted by `dqf doctor` alone: how many a part should have takes a look at each unit.
    """
    if not _is_as_written(_footer(path), name, run_id, schema):
        read_commits(path, name, run_id=run_id, schema=schema)


def check_table(path: Path, *, run_id: str, schema: pa.Schema, rows: int) -> None:
    """Raise CorruptPart for a table that is damaged, or has other columns or not `rows` rows.

    It may name no other run; those of older versions name none. That its rows are those of the plan
    is for `dqf doctor`, which reads them.
    """
    metadata = _metadata(path)
    if (metadata.metadata or {}).get(RUN_KEY, run_id.encode()) != run_id.encode():
        raise CorruptPart(f"{path} is not part of this run")
    _check_columns(path, metadata, schema)
    if metadata.num_rows != rows:
        raise CorruptPart(f"{path} has {metadata.num_rows} rows, the plan {rows}")


def _metadata(path: Path) -> pq.FileMetaData:
    """Return the footer of a Parquet file; CorruptPart: it is damaged.

    StoreError: it cannot be opened now, as without permission, which no repair would mend.
    """
    try:
        with open_regular(path) as file:
            return pq.read_metadata(file)
    except FileNotFoundError:
        raise
    except NOT_PARQUET as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise StoreError(f"{path} cannot be read: {error.strerror}") from error
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CorruptPart:
    return CorruptPart(f"{path} is damaged ({first_line(error)})")


def _check_columns(path: Path, metadata: pq.FileMetaData, schema: pa.Schema) -> None:
    """Raise CorruptPart unless a file has the columns of a schema, each of its type.

    DuckDB would read numbers of half the digits without a word.
    """
    try:
        columns = metadata.schema.to_arrow_schema()
    except NOT_PARQUET as error:
        raise _damaged(path, error) from error
    if not columns.equals(schema):
        ours, theirs = (
            dict(zip(s.names, map(str, s.types), strict=True)) for s in (schema, columns)
        )
        names = [shown(n) for n in ours | theirs if ours.get(n) != theirs.get(n)]
        what = f"column {', '.join(names)}" if names else "the order of its columns"
        raise CorruptPart(f"{path} is damaged ({what} is not as dqf writes it)")


def _is_named(name: str, commits: tuple[Commit, ...]) -> bool:
    """Return whether commits are those of the part `name`."""
    first, committed = _first_commit(name), [(c.chunk, c.generation) for c in commits]
    if PACK_NAME.fullmatch(name):
        return {(c.chunk // GROUP_CHUNKS * GROUP_CHUNKS, c.generation) for c in commits} == {first}
    return committed == ([] if first is None else [first])


def _first_commit(name: str) -> tuple[int, int] | None:
    """Return the chunk and generation of a part's first commit; None for a file without any."""
    if part := PART_NAME.fullmatch(name):
        return int(part["chunk"]), int(part["generation"] or 0)
    if pack := PACK_NAME.fullmatch(name):
        return int(pack["group"]) * GROUP_CHUNKS, 0
    return None


def _footer(path: Path) -> bytes:
    """Return the footer of a Parquet file, or fewer bytes if it cannot be read."""
    with suppress(PermissionError), open_regular(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - TAIL))
        tail = file.read(TAIL)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if len(tail) < length <= size:
            file.seek(size - length)
            tail = file.read(length)
        return tail[-length:]
    return b""


@cache
def _columns_as_written(schema: pa.Schema) -> bytes:
    """Return the bytes with which `write_part` begins the footers of all files of a schema."""
    empty = write_part([], run_id="", schema=schema)
    footer = empty[-int.from_bytes(empty[-8:-4], "little") - 8 :]
    return footer[: footer.index(NO_ROWS)]


def _is_as_written(footer: bytes, name: str, run_id: str, schema: pa.Schema) -> bool:
    """Return whether a footer has, byte by byte, what `write_part` writes in the part `name`.

    False too for a sound footer that another program wrote.
    """
    first = _first_commit(name)
    commits = "[{" + '"chunk": {}, "generation": {}, '.format(*first) if first else "[]"
    place = COMMITTED.search(footer)
    is_committed = place is not None and footer.startswith(commits.encode(), place.end())
    has_columns = footer.startswith(_columns_as_written(schema))
    return is_committed and has_columns and _owner(run_id) in footer


def _owner(run_id: str) -> bytes:
    return _entry(RUN_KEY) + bytes([len(run_id)]) + run_id.encode()


def _commits(metadata: Mapping[bytes, bytes]) -> tuple[Commit, ...]:
    """Return the commits in a footer; CorruptPart if no run writes such."""
    content = metadata.get(COMMITS_KEY.encode(), b"[]")
    document = read_json(content, "its footer", error=CorruptPart)
    return parsed(tuple[Commit, ...], document, "its footer", error=CorruptPart)


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The parts of a run at one moment."""

    parts: dict[tuple[int, int], str] = field(default_factory=dict[tuple[int, int], str])
    """Parts that count, by chunk and generation."""
    packs: dict[int, str] = field(default_factory=dict[int, str])
    """Packs by group."""
    packed: list[str] = field(default_factory=list[str])
    """Parts that a pack has replaced."""
    modified: dict[str, float] = field(default_factory=dict[str, float], compare=False)
    """When each part and pack was written, by name, in seconds by the storage's clock."""

    @property
    def names(self) -> list[str]:
        """The files that together hold every score once, including the empty part."""
        return [EMPTY_PART, *sorted(self.packs.values()), *sorted(self.parts.values())]

    def has(self, chunk: int) -> bool:
        """Return whether a chunk is committed."""
        return (chunk, 0) in self.parts or chunk // GROUP_CHUNKS in self.packs


def live_parts(storage: Storage) -> Live:
    """Return the parts that count.

    Parts are listed before packs, so that a part that disappears in between is in a listed pack.
    """
    parts, packs = storage.files("parts"), storage.files("packs")
    live = Live(modified={file.name: file.modified for file in (*parts, *packs)})
    for file in packs:
        if match := PACK_NAME.fullmatch(file.name):
            live.packs[int(match["group"])] = file.name
    for file in parts:
        match = PART_NAME.fullmatch(file.name)
        if match is None:
            continue
        chunk, generation = int(match["chunk"]), int(match["generation"] or 0)
        if generation == 0 and chunk // GROUP_CHUNKS in live.packs:
            live.packed.append(file.name)
        else:
            live.parts[chunk, generation] = file.name
    return live
