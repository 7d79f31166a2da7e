"""Families of states: DuckDB reduces a run's scores to caption means, out of core.

Shapes: S states of a family, C its captions (suffixes `_SC`, `_S`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.statistics import Array
from schemas.views import EFFECTS

Places = NDArray[np.int64]

PLACE = "part, component, token, step_start, step_stop"
"""Where a state is: its other columns are those of its family."""

REDUCED = f"""
CREATE TEMP TABLE seed_codes AS
  SELECT seed, (row_number() OVER (ORDER BY seed) - 1)::INTEGER AS seed_code
  FROM (SELECT DISTINCT seed FROM units);
CREATE TEMP TABLE caption_codes AS
  SELECT caption_id, attribute, (row_number() OVER (ORDER BY caption_id) - 1)::INTEGER AS caption
  FROM captions;
CREATE TEMP TABLE caption_means AS
  SELECT {PLACE}, against, intervention, caption_id, count(*)::INTEGER AS trials,
    avg(indirect_effect) AS ie, avg(total_effect) AS te,
    bitstring_agg(seed_code, 0, SEEDS - 1) AS seeds, bitstring_agg(draw, 0, DRAWS - 1) AS draws
  FROM ({EFFECTS.replace("TRIALS", "scores")}) JOIN seed_codes USING (seed) GROUP BY ALL;
CREATE TEMP TABLE places AS
  SELECT (row_number() OVER (ORDER BY {PLACE}) - 1)::INTEGER AS place, *
  FROM (SELECT DISTINCT {PLACE} FROM caption_means);
CREATE TEMP TABLE families AS
  SELECT (row_number() OVER (ORDER BY part, against, attribute) - 1)::INTEGER AS family, *
  FROM (SELECT DISTINCT part, against, attribute
    FROM (SELECT DISTINCT part, against, caption_id FROM caption_means)
    JOIN caption_codes USING (caption_id));
CREATE TEMP TABLE numbered AS
  SELECT family, intervention, place, caption, ie, te, trials, seeds, draws
  FROM caption_means JOIN caption_codes USING (caption_id)
  JOIN families USING (part, against, attribute) JOIN places USING ({PLACE});
DROP TABLE caption_means;
"""
"""Captions, states and their families get numbers, which are what leaves DuckDB."""
TEMPORARY = ("seed_codes", "caption_codes", "places", "families", "numbered")

COUNTS = """
SELECT intervention, place, sum(trials)::BIGINT AS num_trials,
  bit_count(bit_or(seeds))::BIGINT AS num_seeds, bit_count(bit_or(draws))::BIGINT AS num_draws
FROM numbered WHERE family = ? GROUP BY ALL ORDER BY place
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """One intervention's caption means, over the states and captions of its family.

    NaN is what a state lacks.
    """

    ie_SC: Array
    te_SC: Array
    num_trials_S: NDArray[np.int64]
    num_seeds_S: NDArray[np.int64]
    num_draws_S: NDArray[np.int64]
    """Of all captions; 0 where the intervention lacks the state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The states of one attribute, part and measure."""

    attribute: str
    part: str
    against: str
    captions: tuple[str, ...]
    """Their ids."""
    places_S: Places
    """Rows of the table of places, ascending."""
    effects: Mapping[str, Effects]
    """By intervention."""


@contextmanager
def reduced(connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[pa.Table, Iterator[Family]]]:
    """Yield the places of all states (columns PLACE), and the families one after another.

    The connection has the views of a run; what is made in it is gone at exit.
    """
    ((seeds, draws),) = _rows(connection, "SELECT count(DISTINCT seed), max(draw) + 1 FROM units")
    statements = REDUCED.replace("SEEDS", str(seeds or 1)).replace("DRAWS", str(draws or 1))
    try:
        connection.execute(statements)
        places = connection.sql(f"SELECT {PLACE} FROM places ORDER BY place").to_arrow_table()
        yield places, _families(connection)
    finally:
        for table in (*TEMPORARY, "caption_means"):
            connection.execute(f"DROP TABLE IF EXISTS {table}")


def _families(connection: duckdb.DuckDBPyConnection) -> Iterator[Family]:
    ids = [row[0] for row in _rows(connection, "SELECT caption_id FROM captions ORDER BY 1")]
    listed = "SELECT family, attribute, part, against FROM families ORDER BY family"
    for number, attribute, part, against in _rows(connection, listed):
        query = "SELECT intervention, place, caption, ie, te FROM numbered WHERE family = ?"
        cells = connection.execute(query, [number]).fetchnumpy()
        captions_C, places_S = np.unique(cells["caption"]), np.unique(cells["place"])
        column = np.searchsorted(captions_C, cells["caption"])
        row = np.searchsorted(places_S, cells["place"])
        counts = connection.execute(COUNTS, [number]).fetchnumpy()
        effects: dict[str, Effects] = {}
        for name in sorted(set(counts["intervention"].tolist())):
            own, counted = cells["intervention"] == name, counts["intervention"] == name
            at, shape = (row[own], column[own]), (len(places_S), len(captions_C))
            states = np.searchsorted(places_S, counts["place"][counted])
            effects[name] = Effects(
                ie_SC=_scattered(cells["ie"][own], at, shape),
                te_SC=_scattered(cells["te"][own], at, shape),
                **{
                    f"{count}_S": _counted(counts[count][counted], states, len(places_S))
                    for count in ("num_trials", "num_seeds", "num_draws")
                },
            )
        yield Family(
            attribute=attribute,
            part=part,
            against=against,
            captions=tuple(ids[caption] for caption in captions_C),
            places_S=places_S.astype(np.int64),
            effects=effects,
        )


def _rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple]:
    return connection.execute(sql).fetchall()


def _scattered(values: Array, at: tuple[Places, Places], shape: tuple[int, int]) -> Array:
    matrix = np.full(shape, np.nan)
    matrix[at] = values
    return matrix


def _counted(values: NDArray[np.int64], states: Places, size: int) -> NDArray[np.int64]:
    counts_S = np.zeros(size, dtype=np.int64)
    counts_S[states] = values
    return counts_S
