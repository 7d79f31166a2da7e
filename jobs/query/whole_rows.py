"""The rows of an evaluation or attack, held against its plan before they are counted."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb

from jobs.query.damage import damage_named
from jobs.query.rules import not_finite, odd_rows, rules_of, scored_units
from jobs.runs.parts import Commit
from jobs.runs.run import Run
from schemas.errors import StoreError
from schemas.views import exactly, read_parquet


@contextmanager
def checked_rows(run: Run[Any]) -> Generator[duckdb.DuckDBPyConnection]:
    """Yield a connection with the view `part` of all rows of an evaluation or attack.

    StoreError: a file is damaged; a row of a committed unit is missing or there twice; or a row is
    none that a worker writes for the plan.
    """
    commits = run.commits()  # rows of newer ones may be there
    paths = list(map(str, run.live_paths()))
    with (
        damage_named(paths, location=run.location, repair=run.repair_hint),
        duckdb.connect() as connection,
    ):
        source = read_parquet([exactly(path) for path in paths])
        connection.execute(f"CREATE VIEW part AS FROM {source}")
        if wrong := _wrong(run, commits, connection):
            raise StoreError(f"the parts of {run.noun} {run.location} {wrong}: {run.repair_hint}")
        yield connection


def _wrong(run: Run[Any], commits: Sequence[Commit], connection: duckdb.DuckDBPyConnection) -> str:
    """Return the end of the sentence on wrong rows, "" where all are right."""
    rules = rules_of(run)
    planned = {run.unit_ids[place]: rules.expected(place) for place in range(len(run.units))}
    tried = {run.unit_ids[place] for commit in commits for place in run.ordinals(commit.chunk)}
    failed = {failure.unit_id for commit in commits for failure in commit.failures}
    units = scored_units(connection, rules)
    if lost := len(tried - failed - {unit.unit_id for unit in units}):
        return f"lack the rows of {lost} units"
    matched = [(u, planned[u.unit_id]) for u in units if u.unit_id in planned]
    strange = len(units) - sum(unit.labels == plan.labels for unit, plan in matched)
    if strange:
        return f"have rows of {strange} units that its plan does not have"
    if odd := odd_rows(connection, rules) or not_finite(connection, run.schema):
        return f"have {odd} rows that no worker writes"
    if uneven := sum(not u.num_rows == u.num_scores == plan.rows for u, plan in matched):
        return f"have {uneven} units with more or fewer rows than its plan says"
    return ""
