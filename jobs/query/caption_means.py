"""Families of states: DuckDB reduces a run's scores to caption means, out of core.

Shapes: S states of a family, C its captions (suffixes `_SC`, `_S`).
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.statistics.inference import Array
from schemas.views import IS_RANKED, effects_of

Places = NDArray[np.int64]

PLACE = "part, component, token, step_start, step_stop"
"""Columns that identify a state within its family."""
KEY = "measure, patch_kind, noise_sigmas"
"""Columns that, besides attribute and part, identify a family."""
TEMPORARY = ("seed_codes", "caption_codes", "component_codes", "places", "families", "numbered")
MASK_BITS = 120
"""Bits of one mask; a HUGEINT has 127."""
CAPTIONS = "SELECT DISTINCT caption FROM numbered WHERE family = $family ORDER BY caption"
CELLS = """
SELECT place, caption, ie, te FROM numbered WHERE family = $family AND intervention = $intervention
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """One intervention's caption means, over the states and captions of its family.

    NaN marks missing values.
    """

    ie_SC: Array
    te_SC: Array
    num_trials_S: NDArray[np.int64]
    num_seeds_S: NDArray[np.int64]
    num_draws_S: NDArray[np.int64]
    """Draws over all captions; 0 where the intervention lacks the state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The states of one attribute, part, kind of patch, noise and measure."""

    attribute: str
    part: str
    patch_kind: str
    noise_sigmas: float
    measure: str
    captions: tuple[str, ...]
    """Ids of the captions."""
    places_S: Places
    """Rows of the table of places, ascending."""
    effects: Mapping[str, Effects]
    """By intervention."""


@contextmanager
def reduced(connection: duckdb.DuckDBPyConnection) -> Generator[tuple[pa.Table, Iterator[Family]]]:
    """Yield the places of all states (columns PLACE), and the families one after another.

    The connection has the views of a run; tables that are made in it are dropped at exit.
    """
    statements, counts = _with_masks(connection)
    try:
        connection.execute(statements)
        places = connection.sql(f"SELECT {PLACE} FROM places ORDER BY place").to_arrow_table()
        yield places, _families(connection, counts)
    finally:
        for table in (*TEMPORARY, "caption_means"):
            connection.execute(f"DROP TABLE IF EXISTS {table}")


def _with_masks(connection: duckdb.DuckDBPyConnection) -> tuple[str, str]:
    """Return the statements that reduce the scores, and the SELECT of a family's counts.

    They take the seeds and draws of a state as bit masks, whose size is fixed, unlike that of lists
    and bit strings, so that DuckDB can spill its aggregates.
    """
    ((seeds, draws),) = _rows(connection, "SELECT count(DISTINCT seed), max(draw) + 1 FROM units")
    masks: list[str] = []
    counted: list[str] = []
    for name, column, size in (("seeds", "seed_code", seeds or 1), ("draws", "draw", draws or 1)):
        numbers = range(-(-size // MASK_BITS))
        masks += [
            f"bit_or(if({column} // {MASK_BITS} = {number}, "
            f"1::HUGEINT << ({column} % {MASK_BITS})::INTEGER, 0)) AS {name}_mask_{number}"
            for number in numbers
        ]
        bits = " + ".join(f"bit_count(bit_or({name}_mask_{number}))" for number in numbers)
        counted.append(f"({bits})::BIGINT AS num_{name}")
    counts = f"""
SELECT intervention, place, sum(trials)::BIGINT AS num_trials, {", ".join(counted)}
FROM numbered WHERE family = $family GROUP BY ALL ORDER BY place
"""
    return _reduced(", ".join(masks)), counts


def _reduced(masks: str) -> str:
    """Return the statements that number captions, states and families, and reduce the scores.

    Numbers alone leave DuckDB. Long names are numbered before scores are grouped: DuckDB holds more
    groups of a fixed size, and can spill the rest. `masks` are columns of bit masks, of a fixed
    size too.
    """
    return f"""
CREATE TEMP TABLE seed_codes AS
  SELECT seed, (row_number() OVER (ORDER BY seed) - 1)::INTEGER AS seed_code
  FROM (SELECT DISTINCT seed FROM units);
CREATE TEMP TABLE caption_codes AS
  SELECT caption_id, attribute, (row_number() OVER (ORDER BY caption_id) - 1)::INTEGER AS caption
  FROM captions;
CREATE TEMP TABLE component_codes AS
  SELECT component, (row_number() OVER (ORDER BY component))::INTEGER AS component_code
  FROM (SELECT DISTINCT component FROM scores WHERE {IS_RANKED});
CREATE TEMP TABLE caption_means AS
  SELECT part, component_code, token, step_start, step_stop, {KEY}, intervention, caption,
    count(*)::INTEGER AS trials, avg(indirect_effect) AS ie, avg(total_effect) AS te, {masks}
  FROM ({effects_of("scores")}) JOIN seed_codes USING (seed)
  JOIN component_codes USING (component) JOIN caption_codes USING (caption_id) GROUP BY ALL;
CREATE TEMP TABLE places AS
  SELECT (row_number() OVER (ORDER BY {PLACE}) - 1)::INTEGER AS place, *
  FROM (SELECT DISTINCT part, component_code, token, step_start, step_stop FROM caption_means)
  JOIN component_codes USING (component_code);
CREATE TEMP TABLE families AS
  SELECT *,
    (row_number() OVER (ORDER BY part, {KEY}, attribute) - 1)::INTEGER AS family
  FROM (SELECT DISTINCT part, {KEY}, attribute
    FROM (SELECT DISTINCT part, {KEY}, caption FROM caption_means)
    JOIN caption_codes USING (caption));
CREATE TEMP TABLE numbered AS
  SELECT family, intervention, place, caption, ie, te, trials, COLUMNS('_mask_')
  FROM caption_means JOIN caption_codes USING (caption)
  JOIN families USING (part, {KEY}, attribute)
  JOIN places USING (part, component_code, token, step_start, step_stop);
DROP TABLE caption_means;
"""


def _families(connection: duckdb.DuckDBPyConnection, count: str) -> Iterator[Family]:
    ids = [row[0] for row in _rows(connection, "SELECT caption_id FROM captions ORDER BY 1")]
    listed = f"SELECT family, attribute, part, {KEY} FROM families ORDER BY family"
    for number, attribute, part, measure, patch_kind, noise_sigmas in _rows(connection, listed):
        columns = _columns(connection, CAPTIONS, family=number)["caption"]
        counts = _columns(connection, count, family=number)
        places_S = np.unique(counts["place"]).astype(np.int64)
        yield Family(
            attribute=attribute,
            part=part,
            patch_kind=patch_kind,
            noise_sigmas=noise_sigmas,
            measure=measure,
            captions=tuple(ids[caption] for caption in columns),
            places_S=places_S,
            effects={
                name: _effects(connection, number, name, counts, places_S, columns)
                for name in sorted(set(counts["intervention"].tolist()))
            },
        )


def _effects(
    connection: duckdb.DuckDBPyConnection,
    family: int,
    intervention: str,
    counts: Mapping[str, NDArray[Any]],
    places_S: Places,
    captions_C: NDArray[np.int32],
) -> Effects:
    cells = _columns(connection, CELLS, family=family, intervention=intervention)
    at = np.searchsorted(places_S, cells["place"]), np.searchsorted(captions_C, cells["caption"])
    shape = len(places_S), len(captions_C)
    counted = counts["intervention"] == intervention
    states = np.searchsorted(places_S, counts["place"][counted])
    return Effects(
        ie_SC=_scattered(cells["ie"], at, shape),
        te_SC=_scattered(cells["te"], at, shape),
        **{
            f"{count}_S": _counted(counts[count][counted], states, len(places_S))
            for count in ("num_trials", "num_seeds", "num_draws")
        },
    )


def _columns(
    connection: duckdb.DuckDBPyConnection, sql: str, **parameters: object
) -> dict[str, NDArray[Any]]:
    found = connection.execute(sql, parameters).fetchnumpy()
    return {name: np.asarray(values) for name, values in found.items()}


def _rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql).fetchall()


def _scattered(values: Array, at: tuple[Places, Places], shape: tuple[int, int]) -> Array:
    matrix = np.full(shape, np.nan)
    matrix[at] = values
    return matrix


def _counted(values: NDArray[np.int64], states: Places, size: int) -> NDArray[np.int64]:
    counts_S = np.zeros(size, dtype=np.int64)
    counts_S[states] = values
    return counts_S
