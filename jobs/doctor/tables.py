"""Whether a run's tables are whole and say what follows from its plan."""

import io
from collections import Counter
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.doctor.findings import Fault
from jobs.doctor.parts import carried_id, fingerprint, on_disk, whole_part
from jobs.runs.parts import EMPTY_PACK, EMPTY_PART, NOT_PARQUET, CorruptPart
from jobs.runs.trace_run import BATCH_UNITS, TraceRun, small_tables, units_batch
from schemas.errors import first_line
from schemas.tables import UNITS

ALL_UNITS = 100_000
"""Of more units than these only a sample is compared with the plan."""
SAMPLE = 1000
UNITS_FILE = "units.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCheck:
    """What is wrong with a run's tables, and the runs that its empty parts say they are of."""

    faults: tuple[Fault, ...]
    run_ids: Counter[str]


def check_tables(run: TraceRun) -> TableCheck:
    """Return what is wrong with the tables and the empty parts, each read whole."""
    texts = {
        **{name: _small_fault(run, name) for name in small_tables(run)},
        UNITS_FILE: _units_fault(run),
        **{name: _empty_fault(run, name) for name in (EMPTY_PART, EMPTY_PACK)},
    }
    texts = {name: text or _query_fault(run, name) for name, text in texts.items()}
    faults = [
        Fault(check="tables", name=n, text=f"{n} {text}") for n, text in texts.items() if text
    ]
    contents = [_content(run, name) for name in (EMPTY_PART, EMPTY_PACK)]
    ids = [run_id for content in contents if (run_id := carried_id(content)) is not None]
    return TableCheck(faults=tuple(faults), run_ids=Counter(ids))


def compared_units(run: TraceRun) -> range:
    """Return the places of the units that are compared with the plan."""
    total = len(run.units)
    return range(0, total, 1 if total <= ALL_UNITS else total // SAMPLE)


def _content(run: TraceRun, name: str) -> bytes:
    """Return a file's content, none if it is missing."""
    try:
        return run.storage.read(name)
    except FileNotFoundError:
        return b""


def _small_fault(run: TraceRun, name: str) -> str:
    """Return what is wrong with a table other than the units', "" if nothing is."""
    planned = small_tables(run)[name]()
    try:
        with _opened(run, name) as file:
            found = file.read()
    except NOT_PARQUET as error:
        return _unreadable(run, name, error)
    if not _is_schema(found.schema, planned.schema):
        return "has another schema"
    if len(found) != len(planned):
        return f"has {len(found)} rows, the plan {len(planned)}"
    return "" if found.equals(planned) else "does not agree with the plan"


def _units_fault(run: TraceRun) -> str:
    """Return what is wrong with the table of units, which is read a batch at a time."""
    compared, start = compared_units(run), 0
    try:
        with _opened(run, UNITS_FILE) as file:
            if not _is_schema(file.schema_arrow, UNITS):
                return "has another schema"
            if file.metadata.num_rows != len(run.units):
                return f"has {file.metadata.num_rows} rows, the plan {len(run.units)} units"
            for batch in file.iter_batches(BATCH_UNITS):
                within = [n for n in range(start, start + len(batch)) if n in compared]
                found = batch.take(pa.array([n - start for n in within], pa.int64()))
                if within and not found.equals(units_batch(run, within)):
                    return "does not agree with the plan"
                start += len(batch)
    except NOT_PARQUET as error:
        return _unreadable(run, UNITS_FILE, error)
    return ""


def _empty_fault(run: TraceRun, name: str) -> str:
    try:
        part = whole_part(run.storage.read(name), name, run_id=run.id)
    except FileNotFoundError:
        return "is missing"
    except CorruptPart as error:
        return first_line(error).removeprefix(name).strip()
    return "is not empty" if len(part.table) or part.commits else ""


def _query_fault(run: TraceRun, name: str) -> str:
    """Return why DuckDB cannot read a file that Arrow can; "" if it can."""
    with duckdb.connect() as connection, on_disk(run, name, run.storage.read(name)) as path:
        try:
            fingerprint(connection, path)
        except CorruptPart as error:
            return str(error)
    return ""


def _is_schema(found: pa.Schema, planned: pa.Schema) -> bool:
    # Metadata of the schema alone: Parquet names the field of a list otherwise than Arrow.
    return found.equals(planned) and (found.metadata or {}) == planned.metadata


def _opened(run: TraceRun, name: str) -> pq.ParquetFile:
    return pq.ParquetFile(io.BytesIO(run.storage.read(name)), page_checksum_verification=True)


def _unreadable(run: TraceRun, name: str, error: Exception) -> str:
    if not run.storage.exists(name):
        return "is missing"
    return f"is not a whole Parquet file: {first_line(error)}"
