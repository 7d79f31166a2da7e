"""`catalog.duckdb`: a run's views in a file that any DuckDB client opens."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb

from engine.files import is_file, temporary_folder
from jobs.query.kept_statistics import select_kept, write_empty_statistics
from jobs.query.set_members import members_of
from jobs.runs.parts import EMPTY_PART, GROUP_CHUNKS, RUN_KEY
from jobs.runs.storage.local import LocalStorage
from jobs.runs.trace_run import TraceRun
from schemas.documentation import comments
from schemas.errors import StoreError, first_line
from schemas.statistics import STATISTICS
from schemas.views import (
    TABLES,
    commits_of,
    exactly,
    quoted,
    read_parquet,
    scores_of,
    view_statements,
)

CATALOG = "catalog.duckdb"
"""A DuckDB file of the views with absolute paths, so that it opens from any folder."""
STORAGE_VERSION = "v1.2.0"
"""The file's format: every DuckDB from 1.2 on reads it."""
MISREAD = ("?", "\\")
"""Signs in a database's path that DuckDB reads as the beginning of options, and as `/`."""


def write_catalog(run: TraceRun) -> None:
    """Write a local run's `catalog.duckdb`, whole or not at all, unless it is there.

    One of the folder that the run was moved or copied from is replaced.
    """
    if not isinstance(run.storage, LocalStorage):
        return
    write_empty_statistics(run)
    state = catalog_state(run)
    if state and not state.error and not state.is_anchored:
        run.storage.remove(CATALOG)
    if not run.storage.exists(CATALOG):
        run.storage.create(CATALOG, _catalog(run))


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogState:
    """The state of a local run's catalog."""

    error: str = ""
    """Why it cannot be opened."""
    is_anchored: bool = False
    """Whether it opens and its paths are those of the run's folder."""


def catalog_state(run: TraceRun) -> CatalogState | None:
    """Return the state of a local run's catalog, or None if it does not exist."""
    location = Path(run.location)
    if not isinstance(run.storage, LocalStorage) or not is_file(location / CATALOG):
        return None
    path = f"{anchor_of(location)}/".replace("'", "''")
    try:
        with duckdb.connect(str(location / CATALOG), read_only=True) as connection:
            views = connection.execute("SELECT view_name, sql FROM duckdb_views()").fetchall()
    except duckdb.Error as error:
        return CatalogState(error=first_line(error))
    return CatalogState(is_anchored=any(path in sql for _, sql in views))


def _catalog(run: TraceRun) -> bytes:
    root = anchor_of(Path(run.location))
    parts = [f"{root}/parts/*.parquet", f"{root}/packs/*.parquet"]
    is_own = _is_own(run, root)
    is_live = partial(_is_live, root=root, is_own=is_own)
    tables = {table: read_parquet([f"{root}/{table}.parquet"]) for table in TABLES}
    statements = view_statements(
        {table: f"SELECT * FROM {rows} WHERE {is_own}" for table, rows in tables.items()},
        scores=scores_of(parts, run.schema, where=is_live),
        commits=commits_of(parts, where=is_live),
        set_members=members_of(run),
        statistics={
            table: f"FROM ({select_kept(table, folder=root)}) WHERE {is_own}"
            for table in STATISTICS
        },
    )
    with temporary_folder("catalog") as temporary:
        path = Path(temporary, CATALOG)
        check_database(path)
        try:
            _write(path, [*statements, *comments("VIEW")])
        except duckdb.Error as error:  # such as a full disk
            raise StoreError(f"cannot write {path}: {first_line(error)}") from error
        return path.read_bytes()


def check_database(path: Path) -> None:
    """Raise StoreError if DuckDB would write a database at another place than `path`."""
    if found := next((sign for sign in MISREAD if sign in str(path.absolute())), None):
        raise StoreError(
            f"cannot write {path}: DuckDB takes the {found} in {path.absolute()} for something "
            "else, choose a place without"
        )


def _write(path: Path, statements: Iterable[str]) -> None:
    """Write a database by statements."""
    with duckdb.connect() as connection:
        connection.execute(
            f"ATTACH {quoted(str(path))} AS catalog (STORAGE_VERSION '{STORAGE_VERSION}')"
        )
        connection.execute("USE catalog")
        # One transaction: hundreds of them would take four times as long.
        connection.begin()
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def anchor_of(folder: Path) -> str:
    """Return the pattern of a folder's absolute path, with which the catalog's paths begin."""
    return exactly(str(folder.absolute()))


def _is_own(run: TraceRun, root: str) -> str:
    """Return the condition that the folder holds this run, which ends the query if not.

    A catalog of a moved run would read whatever run was made in the old place since.
    """
    wrong = f"{CATALOG} of run {run.name} was moved, and {run.location} now holds another run"
    return f"""
(SELECT CASE WHEN any_value(decode(value)) = {quoted(run.id)} THEN true
   ELSE error({quoted(wrong + ": `dqf doctor RUN --repair` writes it for the new place")}) END
 FROM parquet_kv_metadata({quoted(f"{root}/{EMPTY_PART}")})
 WHERE decode(key) = {quoted(RUN_KEY.decode())})"""


def _is_live(file: str, *, root: str, is_own: str) -> str:
    """Return the condition that no pack holds a part; the views list files again each time."""
    return f"""
{is_own} AND NOT coalesce(list_contains(
  (SELECT list(parse_filename(file)) FROM glob({quoted(f"{root}/packs/g*.parquet")})),
  format('g{{:06d}}.parquet',
    try_cast(regexp_extract({file}, '/parts/c(\\d{{8}})\\.parquet', 1) AS BIGINT)
      // {GROUP_CHUNKS})), false)
"""
