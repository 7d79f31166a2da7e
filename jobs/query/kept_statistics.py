"""Statistics that are kept next to a run's scores, for the next reader and for `catalog.duckdb`.

Each table is a file `statistics/TABLE.nSCORES-KEY.parquet`: how many scores it was made of, and a
hash of all that was read. A file whose key differs from the run's is ignored, and is deleted when
newer statistics are written. DuckDB's own clients, which cannot make estimates, read the file of
most scores.
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

from jobs.runs.parts import DAMAGED, Live
from jobs.runs.run import Run
from schemas.errors import StoreError
from schemas.statistics import STATISTICS, STATISTICS_VERSION
from schemas.views import quoted, read_parquet

FOLDER = "statistics"
NAME = re.compile(
    rf"{FOLDER}/(?P<table>{'|'.join(STATISTICS)})"
    r"\.(empty|n(?P<scores>\d{15})-(?P<key>[0-9a-f]{16}))\.parquet"
)
"""Names of the tables' files; empty ones exist before the first score."""
KEY = b"dqf.statistics"
"""Entry of a file's footer with the key that is in its name, whatever it is renamed to."""


def key_of(run: Run[object], live: Live) -> str:
    """Return a hash of the statistics' inputs: the plan, the parts that count, the code."""
    parts = [(name, live.modified.get(name)) for name in live.names]
    text = json.dumps([run.id, STATISTICS_VERSION, parts])
    return sha256(text.encode()).hexdigest()[:16]


def kept_statistics(run: Run[object], key: str) -> dict[str, pa.Table] | None:
    """Return the tables kept under a key; None unless all exist and are whole."""
    try:
        names = [file.name for file in run.storage.files(FOLDER)]
    except StoreError:  # unreadable statistics are made again
        return None
    found = {
        table: name
        for table in STATISTICS
        for name in names
        if re.fullmatch(rf"{FOLDER}/{table}\.n\d+-{key}\.parquet", name)
    }
    if found.keys() != STATISTICS.keys():
        return None
    try:
        return {table: _read(run.storage.read(found[table]), table, key) for table in STATISTICS}
    except DAMAGED:  # damaged, another run's, or gone since: they are made again
        return None


def damaged_statistics(run: Run[object]) -> list[str]:
    """Return the names of kept files that cannot be read."""
    return [file.name for file in run.storage.files(FOLDER) if not _is_whole(run, file.name)]


def _is_whole(run: Run[object], name: str) -> bool:
    match = NAME.fullmatch(name)
    try:
        if match:
            _read(run.storage.read(name), match["table"], match["key"])
    except FileNotFoundError:  # newer ones took its place
        return True
    except DAMAGED:
        return False
    return True


def _read(content: bytes, table: str, key: str | None) -> pa.Table:
    """Return a table; ValueError: it says that it is of another key. Older ones say nothing."""
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    if (file.metadata.metadata or {}).get(KEY, named := (key or "").encode()) != named:
        raise ValueError("the statistics are of other scores")
    return file.read().cast(STATISTICS[table])


def keep_statistics(
    run: Run[object], key: str, tables: Mapping[str, pa.Table], *, scores: int
) -> None:
    """Keep the statistics of `scores` scores, and delete those of fewer.

    In a run that cannot be written, none are kept.
    """
    with suppress(StoreError):
        names = {table: f"{FOLDER}/{table}.n{scores:015d}-{key}.parquet" for table in tables}
        for table, name in names.items():
            run.storage.remove(name)  # a damaged one
            run.storage.create(name, _parquet(tables[table], key))
        for file in run.storage.files(FOLDER):
            match = NAME.fullmatch(file.name)
            is_old = match and match["scores"] is not None and int(match["scores"]) <= scores
            if is_old and file.name not in names.values():
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
    pq.write_table(labeled, file, compression="zstd", write_page_checksum=True)
    return file.getvalue()
