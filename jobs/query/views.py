"""The views of a run on a connection: its files as they are now, its statistics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from jobs.query.kept_statistics import keep_statistics, kept_statistics, key_of
from jobs.query.set_members import members_of
from jobs.runs.attack_run import AttackRun
from jobs.runs.evaluation_run import EvaluationRun
from jobs.runs.parts import EMPTY_PACK, EMPTY_PART
from jobs.runs.run import Run
from jobs.runs.trace_run import TraceRun
from schemas.caption_filter import CaptionFilter
from schemas.evaluation import VIEWS as EVALUATION_VIEWS
from schemas.statistics import STATISTICS
from schemas.views import (
    TABLES,
    commits_of,
    exactly,
    identifier,
    read_parquet,
    row_view_statements,
    scores_of,
    view_statements,
)

ROW_VIEWS: dict[type[Run[Any]], tuple[str, Mapping[str, str]]] = {
    EvaluationRun: ("images", EVALUATION_VIEWS),
    AttackRun: ("attacks", {}),
}
"""The view of the rows of runs without tables of their own, and SELECTs of views over it."""
HIDDEN = "dqf"
"""Prefix of the schemas that hold what views read from memory; no user sees them listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Paths of a run's files that a query reads."""

    tables: dict[str, str]
    packs: list[str]
    """Packs that count, which are never removed."""
    parts: list[str]
    """Parts that count now; each is removed when its group is packed."""
    schema: pa.Schema
    """Schema of packs and parts."""
    key: str
    """Key of the statistics that follow from them."""

    @property
    def paths(self) -> list[str]:
        """All of them."""
        return [*self.tables.values(), *self.packs, *self.parts]


def files_of(run: Run[Any]) -> Files:
    """Return a run's files.

    StoreError: a table is missing, a file is another run's, or a part damaged or another chunk's.
    """
    tables = TABLES if isinstance(run, TraceRun) else ()
    names = [f"{table}.parquet" for table in tables]
    try:
        paths = run.table_paths(names)
        empty_pack, empty_part = run.part_paths([EMPTY_PACK, EMPTY_PART])
    except FileNotFoundError as error:
        raise run.not_whole() from error
    live = run.live()
    return Files(
        tables=dict(zip(tables, map(str, paths), strict=True)),
        packs=list(map(str, [*run.part_paths(sorted(live.packs.values())), empty_pack])),
        parts=list(map(str, [*run.part_paths(sorted(live.parts.values())), empty_part])),
        schema=run.schema,
        key=key_of(run, live),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Selects:
    """The SELECTs that a run's scores and commits come from."""

    scores: str
    commits: str


Source = Callable[[duckdb.DuckDBPyConnection, Files, str], Selects]
"""Makes the SELECTs of files, and reads data into the given schema."""


def in_place(_: duckdb.DuckDBPyConnection, files: Files, __: str) -> Selects:
    """Return SELECTs over the files."""
    # DuckDB assumes that all files are as large as the first: after an empty one it would build the
    # hash table of a join from the scores, which is ten times slower.
    first, then = sorted((files.packs, files.parts), key=len, reverse=True)
    paths = list(map(exactly, (*first, *then)))
    return Selects(scores=scores_of(paths, files.schema), commits=commits_of(paths))


def read_first(connection: duckdb.DuckDBPyConnection, files: Files, schema: str) -> Selects:
    """Read the parts into memory: a query longer than packing takes would never end otherwise."""
    parts, packs = list(map(exactly, files.parts)), list(map(exactly, files.packs))
    connection.execute(f"CREATE TABLE {schema}.scores AS {scores_of(parts, files.schema)}")
    connection.execute(f"CREATE TABLE {schema}.commits AS {commits_of(parts)}")
    return Selects(
        scores=f"{scores_of(packs, files.schema)} UNION ALL FROM {schema}.scores",
        commits=f"{commits_of(packs)} UNION ALL FROM {schema}.commits",
    )


def make_views(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    run: Run[Any],
    files: Files,
    *,
    source: Source,
    hidden: str,
    only: CaptionFilter,
) -> None:
    """Make a run's views in a schema of its name, which is then in use.

    The schema `hidden` holds tables that they read from memory. Scores are those of the captions
    that pass `only`. Views over estimates are still empty.
    """
    connection.execute(f"CREATE SCHEMA {hidden}")
    selects = source(connection, files, hidden)
    connection.execute(f"CREATE SCHEMA {identifier(name)}")
    connection.execute(f"USE {identifier(name)}")
    if isinstance(run, TraceRun):
        for table, schema in STATISTICS.items():
            _put(connection, f"{hidden}.{table}", schema.empty_table())
        statements = view_statements(
            {
                name: f"SELECT * FROM {read_parquet([exactly(path)])}"
                for name, path in files.tables.items()
            },
            scores=only.filtered(selects.scores),
            commits=selects.commits,
            set_members=members_of(run),
            statistics={table: f"FROM {hidden}.{table}" for table in STATISTICS},
        )
    else:
        table, views = ROW_VIEWS[type(run)]
        statements = row_view_statements(table, views, rows=selects.scores, commits=selects.commits)
    for statement in statements:
        connection.execute(statement)


def fill_statistics(
    connection: duckdb.DuckDBPyConnection,
    run: TraceRun,
    files: Files,
    *,
    hidden: str,
    is_filtered: bool,
) -> None:
    """Fill the views over estimates; the run's schema is in use.

    Only estimates of all captions are kept in the run's folder.
    """
    if is_filtered:
        from jobs.query.estimates import make_statistics

        tables = make_statistics(connection)
    else:
        tables = _statistics(connection, run, files)
    for table, content in tables.items():
        _put(connection, f"{hidden}.{table}", content)


def _put(connection: duckdb.DuckDBPyConnection, table: str, content: pa.Table) -> None:
    connection.register("content", content)
    connection.execute(f"CREATE OR REPLACE TABLE {table} AS FROM content")
    connection.unregister("content")


def _statistics(
    connection: duckdb.DuckDBPyConnection, run: TraceRun, files: Files
) -> dict[str, pa.Table]:
    """Return the run's kept statistics, or make and keep new ones."""
    kept = kept_statistics(run, files.key)
    if kept is not None:
        return kept
    # SciPy takes a second to import, which a reader of kept statistics does without.
    from jobs.query.estimates import make_statistics

    tables = make_statistics(connection)
    ((scores,),) = connection.execute("SELECT count(*) FROM scores").fetchall()
    if scores:
        keep_statistics(run, files.key, tables, scores=scores)
    return tables
