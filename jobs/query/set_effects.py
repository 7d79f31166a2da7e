"""The effects of sets of components: one by one, and as curves over their size."""

# pyright: reportUnknownMemberType=false
# pyarrow leaves parts of some methods without types.

from collections.abc import Mapping
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from engine.statistics.inference import draws_of, mean_estimates, ratio_interval, sign_flip_p
from schemas.statistics import STATISTICS
from schemas.views import MIN_TOTAL_EFFECT

OF_STATE = "patch_kind, noise_sigmas, measure, intervention"
SIZED = """
SELECT set_name, attribute, any_value(curve) AS curve, count(*) AS size,
  if(count(DISTINCT part) = 1, any_value(part), 'both') AS part
FROM set_members GROUP BY set_name, attribute
"""
OF_SETS = f"""
SELECT attribute, set_name, curve, size, sized.part, {OF_STATE}, caption_id, ie, te, num_trials
FROM caption_effects JOIN ({SIZED}) AS sized USING (attribute)
WHERE component = set_name
"""
COLLECTED = """list(caption_id ORDER BY caption_id) AS captions,
  list(ie ORDER BY caption_id) AS ie, list(te ORDER BY caption_id) AS te,
  sum(num_trials)::BIGINT AS num_trials"""
EFFECTS = f"""
SELECT attribute, set_name, curve, size, part, {OF_STATE}, {COLLECTED}
FROM ({OF_SETS}) GROUP BY ALL ORDER BY ALL
"""
CURVES = f"""
SELECT attribute, part, curve, size, {OF_STATE}, any_value(num_sets) AS num_sets, {COLLECTED}
FROM (
  SELECT attribute, part, curve, size, {OF_STATE}, caption_id, count(*) AS num_sets,
    avg(ie) AS ie, avg(te) AS te, sum(num_trials) AS num_trials
  FROM ({OF_SETS}) WHERE curve IS NOT NULL GROUP BY ALL)
GROUP BY attribute, part, curve, size, {OF_STATE} ORDER BY ALL
"""
"""Sets of one curve and size are averaged caption by caption: captions are what is independent."""


def set_tables(connection: duckdb.DuckDBPyConnection) -> dict[str, pa.Table]:
    """Return the tables `set_effects` and `set_curves` of the run whose views a connection has."""
    return {
        name: pa.Table.from_pylist(
            [_estimated(row) for row in connection.sql(sql).to_arrow_table().to_pylist()],
            schema=STATISTICS[name],
        )
        for name, sql in (("set_effects", EFFECTS), ("set_curves", CURVES))
    }


def _estimated(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the means over its captions, their intervals and test; what is unknown is
    null."""
    draws = draws_of(tuple(row["captions"]))
    ie_1C, te_1C = np.array([row["ie"]]), np.array([row["te"]])
    ie, te = mean_estimates(ie_1C, draws), mean_estimates(te_1C, draws)
    low_1, high_1 = ratio_interval(ie_1C, te_1C, draws)
    total = te.mean_S[0]
    is_noise = abs(total) < MIN_TOTAL_EFFECT or te.reaches_zero[0]
    numbers = {
        "mean_ie": ie.mean_S[0],
        "ie_low": ie.low_S[0],
        "ie_high": ie.high_S[0],
        "se_ie": ie.se_S[0],
        "mean_te": total,
        "te_low": te.low_S[0],
        "te_high": te.high_S[0],
        "mean_recovery": np.nan if is_noise else ie.mean_S[0] / total,
        "recovery_low": np.nan if is_noise else low_1[0],
        "recovery_high": np.nan if is_noise else high_1[0],
        "p_value": sign_flip_p(ie_1C, draws)[0],
    }
    known = {name: None if np.isnan(value) else float(value) for name, value in numbers.items()}
    return {**row, **known, "num_captions": len(row["captions"])}
