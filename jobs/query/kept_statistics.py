"""Statistics that are kept next to a run's scores, for the next reader and for `catalog.duckdb`.

Each table is a file `statistics/TABLE.nSCORES-HASH.parquet`: how many scores it was made of, and a
hash of its bytes. Its footer has the key of all that was read. A file of another key, or of other
bytes, is ignored, and is deleted when newer statistics are written. DuckDB's own clients, which
cannot make estimates, read the file of most scores.
"""

# pyright: reportUnknownMemberType=false
# pyarrow leaves parts of some methods without types.

import io
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.runs.parts import DAMAGED, WRITTEN, Live
from jobs.runs.run import Run
from schemas.errors import StoreError
from schemas.statistics import STATISTICS, STATISTICS_VERSION
from schemas.views import quoted, read_parquet

FOLDER = "statistics"
NAME = re.compile(
    rf"{FOLDER}/(?P<table>{'|'.join(STATISTICS)})"
    r"\.(empty|n(?P<scores>\d{15})-(?P<hash>[0-9a-f]{16}))\.parquet"
)
"""Names of the tables' files; empty ones exist before the first score."""
KEY = b"dqf.statistics"
"""Entry of a file's footer with the key of its inputs; files of older versions lack it."""


def key_of(run: Run[object], live: Live) -> str:
    """Return a hash of the statistics' inputs: the plan, the parts that count, the code."""
    parts = [(name, live.modified.get(name)) for name in live.names]
    text = json.dumps([run.id, STATISTICS_VERSION, parts])
    return _hash(text.encode())


def kept_statistics(run: Run[object], key: str) -> dict[str, pa.Table] | None:
    """Return the tables kept under a key; None unless all exist and are whole."""
    try:
        names = [file.name for file in run.storage.files(FOLDER)]
    except StoreError:  # unreadable statistics are made again
        return None
    found = {
        match["table"]: table
        for name in names
        if (match := NAME.fullmatch(name)) and (table := _of_key(run, match, key)) is not None
    }
    return found if found.keys() == STATISTICS.keys() else None


def damaged_statistics(run: Run[object]) -> list[str]:
    """Return the names of kept files that cannot be read, or are not as they were written."""
    return [file.name for file in run.storage.files(FOLDER) if not _is_whole(run, file.name)]


def _of_key(run: Run[object], match: re.Match[str], key: str) -> pa.Table | None:
    """Return a kept table if it is of a key."""
    try:
        kept_key, table = _read(run, match)
    except DAMAGED:  # or gone since
        return None
    return table if kept_key == key else None


def _is_whole(run: Run[object], name: str) -> bool:
    try:
        if match := NAME.fullmatch(name):
            _read(run, match)
    except FileNotFoundError:  # newer ones took its place
        return True
    except DAMAGED:
        return False
    return True


def _read(run: Run[object], match: re.Match[str]) -> tuple[str | None, pa.Table]:
    """Return a table and its key; ValueError: it is not as it was written."""
    content = run.storage.read(match[0])
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    key = (file.metadata.metadata or {}).get(KEY)
    if key is not None and match["hash"] not in (None, _hash(content)):
        raise ValueError("the statistics were changed")
    table = file.read().cast(STATISTICS[match["table"]])
    return None if key is None else key.decode(errors="replace"), table


def keep_statistics(
    run: Run[object], key: str, tables: Mapping[str, pa.Table], *, scores: int
) -> None:
    """Keep the statistics of `scores` scores, and delete those of fewer.

    In a run that cannot be written, none are kept.
    """
    with suppress(StoreError):
        names = set[str]()
        for table, rows in tables.items():
            content = _parquet(rows, key)
            name = f"{FOLDER}/{table}.n{scores:015d}-{_hash(content)}.parquet"
            run.storage.remove(name)  # a damaged one
            run.storage.create(name, content)
            names.add(name)
        for file in run.storage.files(FOLDER):
            match = NAME.fullmatch(file.name)
            is_old = match and match["scores"] is not None and int(match["scores"]) <= scores
            if is_old and file.name not in names:
                run.storage.remove(file.name)


def write_empty_statistics(run: Run[object]) -> None:
    """Write the missing files without rows."""
    for table, schema in STATISTICS.items():
        name = f"{FOLDER}/{table}.empty.parquet"
        if not run.storage.exists(name):
            run.storage.create(name, _parquet(schema.empty_table(), ""))


def select_kept(table: str, *, folder: str) -> str:
    """Return the SELECT of a table's newest file; `folder` is the pattern of the run's folder."""
    files = f"{folder}/{FOLDER}/{table}.*.parquet"
    return f"""
SELECT * EXCLUDE file FROM {read_parquet([files], named=True)}
WHERE file = (SELECT max(file) FROM glob({quoted(files)})
  WHERE regexp_full_match(file, '(.*/)?{re.sub("[?]P<[a-z]+>", "", NAME.pattern)}'))"""


def _parquet(table: pa.Table, key: str) -> bytes:
    file = io.BytesIO()
    labeled = table.replace_schema_metadata({**(table.schema.metadata or {}), KEY: key.encode()})
    pq.write_table(labeled, file, **WRITTEN)
    return file.getvalue()


def _hash(content: bytes) -> str:
    return sha256(content).hexdigest()[:16]
