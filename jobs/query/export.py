"""A run's views as tables that need nothing else: a DuckDB file, or a folder of Parquet or CSV."""

# pyright: reportUnknownMemberType=false
# pyarrow leaves parts of some methods without types.

import os
import re
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from engine.files import new_folder, prepare_output
from jobs.query.catalog import STORAGE_VERSION, check_database
from jobs.query.opened import Views
from jobs.query.select import opened_views
from jobs.runs.progress import Note
from jobs.runs.trace_run import TraceRun
from schemas.documentation import VIEWS, comments
from schemas.errors import StoreError
from schemas.table_format import TableFormat
from schemas.views import identifier, quoted

COPIED = {
    TableFormat.PARQUET: "FORMAT parquet, COMPRESSION zstd",
    TableFormat.CSV: "FORMAT csv, HEADER",
}
"""DuckDB's options for the formats with a file for each table."""


UNWRITTEN = re.compile(r'Could not write file ".+": (.+)')
"""DuckDB's words for a disk that is full."""


def format_of(out: Path) -> TableFormat:
    """Return the format for a place: a DuckDB file for `.duckdb`, otherwise Parquet."""
    return TableFormat.DUCKDB if out.suffix == ".duckdb" else TableFormat.PARQUET


def export_run(run: TraceRun, out: Path, table_format: TableFormat, *, note: Note) -> None:
    """Write every view of a run as a table, all of them or none.

    The file of a DuckDB database replaces an existing file; a folder must be new or empty.

    ConceptError, StoreError: the place cannot be written. QueryRefused: the run cannot be read.
    """
    if (table_format is TableFormat.DUCKDB) != (out.suffix == ".duckdb"):
        what = "a file that ends in .duckdb" if table_format is TableFormat.DUCKDB else "a folder"
        raise StoreError(f"--format {table_format} {out}: this format needs {what}")
    place = _new_database(out) if table_format is TableFormat.DUCKDB else new_folder(out)
    with _write_errors(out), place as path, opened_views(run) as views:
        if table_format is TableFormat.DUCKDB:
            _write_database(views, path, note=note)
        else:
            _write_files(views, path, table_format, note=note)


@contextmanager
def _write_errors(out: Path) -> Generator[None]:
    """Turn an error of DuckDB on a full disk into StoreError."""
    try:
        yield
    except duckdb.Error as error:
        found = UNWRITTEN.search(str(error))
        if found is None:
            raise
        raise StoreError(f"cannot write {out}: {found[1]}") from error


@contextmanager
def _new_database(out: Path) -> Generator[Path]:
    """Yield the path of a new file that becomes `out` when the block ends."""
    check_database(out)
    prepare_output(out, error=StoreError)
    with tempfile.TemporaryDirectory(prefix=f".{out.name[:40]}.", dir=out.parent) as folder:
        path = Path(folder, out.name)
        yield path
        os.replace(path, out)


def _write_database(views: Views, path: Path, *, note: Note) -> None:
    with duckdb.connect() as connection:
        place = f"{quoted(str(path))} AS exported (STORAGE_VERSION '{STORAGE_VERSION}')"
        connection.execute(f"ATTACH {place}")
        connection.execute("USE exported")
        for name in _registered(views, connection, note=note):
            connection.execute(f"CREATE TABLE {identifier(name)} AS FROM content")
        for statement in comments("TABLE"):
            connection.execute(statement)
        connection.execute("USE memory")
        connection.execute("DETACH exported")


def _write_files(views: Views, folder: Path, table_format: TableFormat, *, note: Note) -> None:
    with duckdb.connect() as connection:
        for name in _registered(views, connection, note=note):
            file = quoted(str(folder / f"{name}.{table_format}"))
            connection.execute(f"COPY (FROM content) TO {file} ({COPIED[table_format]})")


def _registered(
    views: Views, connection: duckdb.DuckDBPyConnection, *, note: Note
) -> Iterator[str]:
    """Yield the name of each view, whose rows are then `content` of the connection."""
    for view in VIEWS:
        note(f"writing {view.name}")
        result = views.stream(f"FROM {identifier(view.name)}")
        reader = pa.RecordBatchReader.from_batches(result.schema, result.batches)
        connection.register("content", reader)
        yield view.name
        connection.unregister("content")
