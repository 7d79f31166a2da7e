"""The SQL views of a run: from scores to total and indirect effects, rankings and causal states."""

from collections.abc import Mapping, Sequence

from schemas.intervention import CONTROLS, Intervention

MIN_TOTAL_EFFECT = 0.01
"""Recovery is null where |total effect| is under this cosine difference: a ratio of noise."""
COMMITS_KEY = "dqf.commits"
"""Key of a part's footer that holds, as JSON, the chunks that it commits, each with its generation
(0, then one more each time its failed units are tried again), its units and those that failed."""

CONTROL_NAMES = ", ".join(f"'{control}'" for control in CONTROLS)
CHANGES_CORRUPTED = ", ".join(f"'{i}'" for i in Intervention if i.changes_corrupted)

# Signed so that a component which carries the attribute is above zero in every direction: restored
# into the corrupted run it brings the score back, taken out of the clean run it takes it away.
EFFECTS = f"""
SELECT *, indirect_effect / CASE WHEN abs(total_effect) >= {MIN_TOTAL_EFFECT}
  THEN total_effect END AS recovery
FROM (
  SELECT *,
    clean - corrupted AS total_effect,
    CASE WHEN intervention IN ({CHANGES_CORRUPTED})
      THEN restored - corrupted ELSE clean - restored END AS indirect_effect
  FROM TRIALS)
"""

# What is compared: a component, restored at certain tokens and steps.
STATE = "attribute, part, component, token, step_start, step_stop, against"

# Seeds and draws of one caption are not independent: the caption is the cluster, and the standard
# error is that of the mean over captions of each caption's mean.
# Captions are joined to the means, not to the scores: five times as quick.
CAPTION_EFFECTS = f"""
SELECT {STATE}, intervention, caption_id, ie, te, recovery, num_trials
FROM (
  SELECT {STATE.removeprefix("attribute, ")}, intervention, caption_id,
    avg(indirect_effect) AS ie, avg(total_effect) AS te, avg(recovery) AS recovery,
    count(*) AS num_trials
  FROM ({EFFECTS.replace("TRIALS", "scores")}) GROUP BY ALL)
JOIN captions USING (caption_id)
"""

COMPONENT_EFFECTS = f"""
SELECT {STATE}, intervention,
  avg(ie) AS mean_ie,
  stddev_samp(ie) / sqrt(count(*)) AS se_ie,
  avg(te) AS mean_te,
  avg(recovery) AS mean_recovery,
  count(*) AS num_captions,
  sum(num_trials)::BIGINT AS num_trials
FROM caption_effects GROUP BY ALL
"""

# Restoring beside its controls. An effect survives `other-seed` if that still has one (control_ie);
# it survives `other-caption` if it exceeds that (mean_difference, taken caption by caption).
CONTROLLED_EFFECTS = f"""
SELECT {STATE}, control.intervention AS control,
  avg(restored.ie) AS mean_ie,
  avg(control.ie) AS control_ie,
  stddev_samp(control.ie) / sqrt(count(*)) AS se_control,
  avg(restored.ie - control.ie) AS mean_difference,
  stddev_samp(restored.ie - control.ie) / sqrt(count(*)) AS se_difference,
  count(*) AS num_captions
FROM caption_effects AS restored
JOIN caption_effects AS control USING ({STATE}, caption_id)
WHERE restored.intervention = 'restore' AND control.intervention IN ({CONTROL_NAMES})
GROUP BY ALL
"""

RANKING = """
SELECT rank() OVER (
    PARTITION BY attribute, part, intervention, against ORDER BY mean_ie DESC) AS rank, *
FROM component_effects
ORDER BY attribute, part, intervention, against, rank, component, token, step_start, step_stop
"""

NORMAL_95 = 1.96
"""Standard errors on either side of a mean in its normal 95 % interval."""

# The interval of the mean over captions; no correction for the number of components.
CAUSAL_STATES = f"""
SELECT * FROM ranking WHERE intervention = 'restore' AND mean_ie - {NORMAL_95} * se_ie > 0
"""

# Data and failures are committed in one file: the footer of every part.
COMMIT_JSON = """[{"chunk": "INTEGER", "generation": "INTEGER", "units": "INTEGER",
  "failures": [{"unit_id": "VARCHAR", "error": "VARCHAR", "message": "VARCHAR",
    "traceback": "VARCHAR"}]}]"""

COMMITS = f"""
SELECT commit.* FROM (
  SELECT unnest(from_json(decode(value), '{COMMIT_JSON}')) AS commit
  FROM parquet_kv_metadata(PARTS) WHERE decode(key) = '{COMMITS_KEY}' AND WHERE_FILE)
"""

# A chunk's latest generation tried again all that had failed before.
FAILURES = """
SELECT failure.*, chunk, generation FROM (
  SELECT unnest(failures) AS failure, chunk, generation FROM (
    SELECT * FROM commits QUALIFY generation = max(generation) OVER (PARTITION BY chunk)))
"""


TABLES = ("captions", "slabs", "units", "components")
"""Tables of a run that are one file each."""


def scores_of(parts: Sequence[str], *, where: str = "true") -> str:
    """Return the SELECT of the scores in `parts`, which are paths or globs that match a file.

    Of these the files count that are `where`, an expression with {file} for the file's path.
    """
    return (
        f"SELECT * EXCLUDE file FROM read_parquet({_listed(parts)}, filename = 'file') "
        f"WHERE {where.format(file='file')}"
    )


def commits_of(parts: Sequence[str], *, where: str = "true") -> str:
    """Return the SELECT of what `parts` commit, as `scores_of` that of their scores."""
    body = COMMITS.replace("PARTS", _listed(parts))
    return body.replace("WHERE_FILE", where.format(file="file_name"))


def view_statements(tables: Mapping[str, str], *, scores: str, commits: str) -> list[str]:
    """Return the CREATE VIEW statements over a run's files, each view after those it reads.

    `tables` maps each of TABLES to its file; `scores` and `commits` are the SELECTs of these.
    """
    views = {
        **{name: f"SELECT * FROM read_parquet({quoted(tables[name])})" for name in TABLES},
        "scores": scores,
        "commits": commits,
        "failures": FAILURES,
        "trials": "SELECT * FROM scores JOIN captions USING (caption_id)",
        "effects": EFFECTS.replace("TRIALS", "trials"),
        "caption_effects": CAPTION_EFFECTS,
        "component_effects": COMPONENT_EFFECTS,
        "controlled_effects": CONTROLLED_EFFECTS,
        "ranking": RANKING,
        "causal_states": CAUSAL_STATES,
    }
    return [f"CREATE OR REPLACE VIEW {name} AS {body}" for name, body in views.items()]


def _listed(parts: Sequence[str]) -> str:
    return "[" + ", ".join(map(quoted, parts)) + "]"


def quoted(text: str) -> str:
    """Return `text` as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return `name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
