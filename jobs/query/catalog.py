"""`catalog.duckdb`: a run's views in a file that any DuckDB client opens."""

import tempfile
from functools import partial
from pathlib import Path

import duckdb

from jobs.query.kept_statistics import select_kept, write_empty_statistics
from jobs.query.set_members import members_of
from jobs.runs.parts import GROUP_CHUNKS
from jobs.runs.storage.local import LocalStorage
from jobs.runs.trace_run import TraceRun
from schemas.documentation import comments
from schemas.statistics import STATISTICS
from schemas.views import TABLES, commits_of, exactly, quoted, scores_of, view_statements

CATALOG = "catalog.duckdb"
"""A DuckDB file of the views with absolute paths, so that it opens from any folder."""
STORAGE_VERSION = "v1.2.0"
"""The file's format: every DuckDB from 1.2 on reads it."""


def write_catalog(run: TraceRun) -> None:
    """Write a local run's `catalog.duckdb`, whole or not at all, unless it exists."""
    if not isinstance(run.storage, LocalStorage):
        return
    write_empty_statistics(run)
    if not run.storage.exists(CATALOG):
        run.storage.create(CATALOG, _catalog(run))


def _catalog(run: TraceRun) -> bytes:
    root = anchor_of(Path(run.location))
    parts = [f"{root}/parts/*.parquet", f"{root}/packs/*.parquet"]
    is_live = partial(_is_live, root=root)
    statements = view_statements(
        {table: f"{root}/{table}.parquet" for table in TABLES},
        scores=scores_of(parts, where=is_live),
        commits=commits_of(parts, where=is_live),
        set_members=members_of(run),
        statistics={table: select_kept(table, folder=root) for table in STATISTICS},
    )
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, CATALOG)
        with duckdb.connect() as connection:
            connection.execute(
                f"ATTACH {quoted(str(path))} AS catalog (STORAGE_VERSION '{STORAGE_VERSION}')"
            )
            connection.execute("USE catalog")
            # One transaction: hundreds of them would take four times as long.
            connection.begin()
            for statement in (*statements, *comments("VIEW")):
                connection.execute(statement)
            connection.commit()
        return path.read_bytes()


def anchor_of(folder: Path) -> str:
    """Return the pattern of a folder's absolute path, with which the catalog's paths begin."""
    return exactly(str(folder.absolute()))


def _is_live(file: str, *, root: str) -> str:
    """Return the condition that no pack holds a part; the views list files again each time."""
    return f"""
NOT coalesce(list_contains(
  (SELECT list(parse_filename(file)) FROM glob({quoted(f"{root}/packs/g*.parquet")})),
  format('g{{:06d}}.parquet',
    try_cast(regexp_extract({file}, '/parts/c(\\d{{8}})\\.parquet', 1) AS BIGINT)
      // {GROUP_CHUNKS})), false)
"""
