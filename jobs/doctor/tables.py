"""Checks that a run's tables are intact and agree with its plan."""

# pyright: reportUnknownMemberType=false
# pyarrow leaves parts of some methods without types.

import io
from collections import Counter
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.doctor.findings import Fault
from jobs.doctor.parts import carried_id, fingerprint, on_disk, whole_part
from jobs.runs.parts import EMPTY_PACK, EMPTY_PART, NOT_PARQUET, CorruptPart
from jobs.runs.run import Run
from jobs.runs.trace_run import BATCH_UNITS, TraceRun, small_tables, units_batch
from schemas.errors import first_line
from schemas.tables import UNITS

ALL_UNITS = 100_000
"""In a run with more units than this, only a sample is compared with the plan."""
SAMPLE = 1000
UNITS_FILE = "units.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCheck:
    """The faults of a run's tables, and the ids of the runs that its empty parts name."""

    faults: tuple[Fault, ...]
    run_ids: Counter[str]


def check_tables(run: Run[Any], connection: duckdb.DuckDBPyConnection) -> TableCheck:
    """Return the faults of the tables and the empty parts; every file is read whole."""
    texts = {name: _empty_fault(run, name) for name in (EMPTY_PART, EMPTY_PACK)}
    if isinstance(run, TraceRun):
        texts |= {name: _small_fault(run, name) for name in small_tables(run)}
        texts[UNITS_FILE] = _units_fault(run)
    texts = {
        n: text or _owner_fault(run, n) or _query_fault(run, n, connection)
        for n, text in texts.items()
    }
    faults = [
        Fault(check="tables", name=n, text=f"{n} {text}") for n, text in texts.items() if text
    ]
    contents = [_content(run, name) for name in (EMPTY_PART, EMPTY_PACK)]
    ids = [run_id for content in contents if (run_id := carried_id(content)) is not None]
    return TableCheck(faults=tuple(faults), run_ids=Counter(ids))


def compared_units(run: Run[Any]) -> range:
    """Return the indices of the units that are compared with the plan."""
    total = len(run.units)
    return range(0, total, 1 if total <= ALL_UNITS else total // SAMPLE)


def _content(run: Run[Any], name: str) -> bytes:
    """Return a file's content, or empty bytes if it is missing."""
    try:
        return run.storage.read(name)
    except FileNotFoundError:
        return b""


def _small_fault(run: TraceRun, name: str) -> str:
    """Return the fault of a table other than that of the units, "" if it has none."""
    planned = small_tables(run)[name]()
    try:
        with _opened(run, name) as file:
            table, schema = file.read(), file.schema_arrow
    except NOT_PARQUET as error:
        return _unreadable(run, name, error)
    if not _is_schema(schema, planned.schema):
        return "has another schema"
    if len(table) != len(planned):
        return f"has {len(table)} rows, the plan {len(planned)}"
    return "" if table.equals(planned) else "does not agree with the plan"


def _units_fault(run: TraceRun) -> str:
    """Return the fault of the table of units, "" if it has none; it is read batch by batch."""
    compared, start = compared_units(run), 0
    try:
        with _opened(run, UNITS_FILE) as file:
            if not _is_schema(file.schema_arrow, UNITS):
                return "has another schema"
            if file.metadata.num_rows != len(run.units):
                return f"has {file.metadata.num_rows} rows, the plan {len(run.units)} units"
            for batch in file.iter_batches(BATCH_UNITS):
                within = [n for n in range(start, start + len(batch)) if n in compared]
                rows = batch.take(pa.array([n - start for n in within], pa.int64()))
                if within and not rows.equals(units_batch(run, within)):
                    return "does not agree with the plan"
                start += len(batch)
    except NOT_PARQUET as error:
        return _unreadable(run, UNITS_FILE, error)
    return ""


def _empty_fault(run: Run[Any], name: str) -> str:
    try:
        part = whole_part(run, run.storage.read(name), name)
    except FileNotFoundError:
        return "is missing"
    except CorruptPart as error:
        return first_line(error).removeprefix(name).strip()
    return "is not empty" if len(part.table) or part.commits else ""


def _owner_fault(run: Run[Any], name: str) -> str:
    """Return that a file names another run; "" if it names this one, or none as older ones do."""
    return "" if carried_id(_content(run, name)) in (None, "", run.id) else "is not of this run"


def _query_fault(run: Run[Any], name: str, connection: duckdb.DuckDBPyConnection) -> str:
    """Return why DuckDB cannot read a file that Arrow can; "" if it can."""
    with on_disk(run, name, run.storage.read(name)) as path:
        try:
            fingerprint(connection, path)
        except CorruptPart as error:
            return str(error)
    return ""


def _is_schema(schema: pa.Schema, planned: pa.Schema) -> bool:
    # Only the schema's own metadata: Parquet names the field of a list differently from Arrow.
    return schema.equals(planned) and (schema.metadata or {}) == planned.metadata


def _opened(run: TraceRun, name: str) -> pq.ParquetFile:
    return pq.ParquetFile(io.BytesIO(run.storage.read(name)), page_checksum_verification=True)


def _unreadable(run: TraceRun, name: str, error: Exception) -> str:
    if not run.storage.exists(name):
        return "is missing"
    return f"is not a whole Parquet file: {first_line(error)}"
