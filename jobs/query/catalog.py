"""`catalog.duckdb`: a run's views in a file that any DuckDB client opens."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb

from jobs.query.kept_statistics import select_kept, write_empty_statistics
from jobs.runs.parts import GROUP_CHUNKS
from jobs.runs.storage.local import LocalStorage
from jobs.runs.trace_run import TraceRun
from schemas.documentation import VIEWS
from schemas.statistics import STATISTICS
from schemas.views import TABLES, commits_of, quoted, scores_of, view_statements

CATALOG = "catalog.duckdb"
"""A DuckDB file of the views with paths relative to the run's folder: open it from there."""


def write_catalog(run: TraceRun) -> None:
    """Write a local run's `catalog.duckdb`, whole or not at all, unless it exists."""
    if not isinstance(run.storage, LocalStorage):
        return
    write_empty_statistics(run)
    if not run.storage.exists(CATALOG):
        run.storage.create(CATALOG, _catalog(Path(run.location)))


def _catalog(folder: Path) -> bytes:
    tables = {table: f"{table}.parquet" for table in TABLES}
    parts = ["parts/*.parquet", "packs/*.parquet"]
    statements = view_statements(
        tables,
        scores=scores_of(parts, where=_is_live),
        commits=commits_of(parts, where=_is_live),
        statistics={table: select_kept(table) for table in STATISTICS},
    )
    with tempfile.TemporaryDirectory() as temporary:
        # A search path is a list: a link stands for a folder that has a comma in its name.
        path, link = Path(temporary, CATALOG), Path(temporary, "run")
        link.symlink_to(folder, target_is_directory=True)
        with duckdb.connect(str(path)) as connection:
            connection.execute(f"SET file_search_path = {quoted(str(link))}")
            for statement in (*statements, *_comments()):
                connection.execute(statement)
        return path.read_bytes()


def _is_live(file: str) -> str:
    """Return the condition that no pack holds a part; the views list files again each time."""
    return f"""
NOT coalesce(list_contains(
  (SELECT list(parse_filename(file)) FROM glob('packs/g*.parquet')),
  format('g{{:06d}}.parquet',
    try_cast(regexp_extract({file}, 'parts/c(\\d{{8}})\\.parquet', 1) AS BIGINT)
      // {GROUP_CHUNKS})), false)
"""


def _comments() -> Iterator[str]:
    """Yield the statements that write the views' documentation into the catalog."""
    for view in VIEWS:
        yield f"COMMENT ON VIEW {view.name} IS {quoted(view.meaning)}"
        for column in view.columns:
            yield f"COMMENT ON COLUMN {view.name}.{column.name} IS {quoted(column.comment)}"
