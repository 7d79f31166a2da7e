"""The SQL views of a run: from scores to total and indirect effects, rankings and causal states."""

from collections.abc import Sequence

MIN_TOTAL_EFFECT = 0.01
"""Recovery is null where |total effect| is under this cosine difference: a ratio of noise."""
FAILURES_KEY = "dqf.failures"
"""Key of a part's footer that lists the units that failed in its chunk, as JSON."""

EFFECTS = f"""
SELECT *,
  clean - corrupted AS total_effect,
  restored - corrupted AS indirect_effect,
  CASE WHEN abs(clean - corrupted) >= {MIN_TOTAL_EFFECT}
    THEN (restored - corrupted) / (clean - corrupted) END AS recovery
FROM trials
"""

# Seeds and draws of one caption are not independent: the caption is the cluster, and the standard
# error is that of the mean over captions of each caption's mean.
COMPONENT_EFFECTS = """
WITH per_caption AS (
  SELECT attribute, part, component, token, step_start, step_stop, against, caption_id,
    avg(indirect_effect) AS ie, avg(total_effect) AS te, avg(recovery) AS recovery,
    count(*) AS num_trials
  FROM effects GROUP BY ALL
)
SELECT attribute, part, component, token, step_start, step_stop, against,
  avg(ie) AS mean_ie,
  stddev_samp(ie) / sqrt(count(*)) AS se_ie,
  avg(te) AS mean_te,
  avg(recovery) AS mean_recovery,
  count(*) AS num_captions,
  sum(num_trials)::BIGINT AS num_trials
FROM per_caption GROUP BY ALL
"""

RANKING = """
SELECT rank() OVER (PARTITION BY attribute, part, against ORDER BY mean_ie DESC) AS rank, *
FROM component_effects ORDER BY attribute, part, against, rank, component
"""

NORMAL_95 = 1.96
"""Standard errors on either side of a mean in its normal 95 % interval."""

# The interval of the mean over captions; no correction for the number of components.
CAUSAL_STATES = f"SELECT * FROM ranking WHERE mean_ie - {NORMAL_95} * se_ie > 0"

FAILURES = f"""
SELECT failure.* FROM (
  SELECT unnest(from_json(decode(value), '[{{"unit_id": "VARCHAR", "error": "VARCHAR",
    "message": "VARCHAR", "traceback": "VARCHAR"}}]')) AS failure
  FROM parquet_kv_metadata({{parts}}) WHERE decode(key) = '{FAILURES_KEY}')
"""


def view_statements(*, units: str, components: str, parts: Sequence[str]) -> list[str]:
    """Return the CREATE VIEW statements over a run's files, each view after those it reads.

    `parts` are paths or globs that match at least one file: a run has an empty part from its start.
    """
    listed = "[" + ", ".join(_quoted(part) for part in parts) + "]"
    views = {
        "units": f"SELECT * FROM read_parquet({_quoted(units)})",
        "captions": "SELECT DISTINCT caption_id, caption, subject, attribute, target FROM units",
        "components": f"SELECT * FROM read_parquet({_quoted(components)})",
        "scores": f"SELECT * FROM read_parquet({listed})",
        "trials": "SELECT * FROM scores JOIN captions USING (caption_id)",
        "effects": EFFECTS,
        "component_effects": COMPONENT_EFFECTS,
        "ranking": RANKING,
        "causal_states": CAUSAL_STATES,
        "failures": FAILURES.replace("{parts}", listed),
    }
    return [f"CREATE OR REPLACE VIEW {name} AS {body}" for name, body in views.items()]


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "''") + "'"
