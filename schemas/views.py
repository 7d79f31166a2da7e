"""The SQL views of a run: from scores to total and indirect effects, rankings and causal states."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import pyarrow as pa

from schemas.component import TEXT_ENTRIES, Part
from schemas.intervention import Intervention, PatchKind
from schemas.screen import Screen

MIN_TOTAL_EFFECT = 0.01
"""Recovery is null below this |total effect|, where it would be a ratio of noise."""
COMMITS_KEY = "dqf.commits"
"""Key in the footer of a part file that holds, as JSON, the chunks that it commits, each with its
generation (how often its failed units were tried again), its units and those that failed."""
NOT_FINITE = "holds numbers that are not finite"
"""The words behind the path of a part with such numbers."""
WORDS: Mapping[str, Iterable[str]] = {
    "part": Part, "intervention": Intervention, "patch_kind": PatchKind,
    "estimate": ("exact", *Screen),
}  # fmt: skip
"""Columns that hold one of a few words."""
ODD_WORDS = f"holds words that {', '.join(WORDS)} cannot be"
"""The words behind the path of a part with such words."""

CHANGES_CORRUPTED = ", ".join(f"'{i}'" for i in Intervention if i.changes_corrupted)


def effects_of(trials: str) -> str:
    """Return the SELECT of each score's effects, from a table of scores.

    They are signed so that a component which carries the attribute is above zero in every
    direction: restored into the corrupted run it brings the score back, taken out of the clean run
    it takes it away.
    """
    return f"""
SELECT *, indirect_effect / CASE WHEN abs(total_effect) >= {MIN_TOTAL_EFFECT}
  THEN total_effect END AS recovery
FROM (
  SELECT *,
    clean - corrupted AS total_effect,
    CASE WHEN intervention IN ({CHANGES_CORRUPTED})
      THEN patched - corrupted ELSE clean - patched END AS indirect_effect
  FROM {trials})
"""


# A state: a component at certain tokens and steps, what is copied, under which noise, for an
# attribute and measure.
STATE = (
    "attribute", "part", "component", "token", "step_start", "step_stop", "patch_kind",
    "noise_sigmas", "measure",
)  # fmt: skip

# Seeds and draws of one caption are not independent: the caption is the cluster of all statistics.
# Joining captions to the means, not to the scores, is five times faster.
CAPTION_EFFECTS = f"""
SELECT {", ".join(STATE)}, intervention, caption_id, ie, te, recovery, num_trials
FROM (
  SELECT {", ".join(STATE[1:])}, intervention, caption_id,
    avg(indirect_effect) AS ie, avg(total_effect) AS te, avg(recovery) AS recovery,
    count(*) AS num_trials
  FROM ({effects_of("scores")}) GROUP BY ALL)
JOIN captions USING (caption_id)
"""

RANKED_BY = """attribute, part, intervention, measure, mean_ie DESC,
  component, token, step_start, step_stop, patch_kind, noise_sigmas"""

# Neither sets nor all text entries together are ranked among components.
IS_RANKED = f"""component <> '{TEXT_ENTRIES}'
  AND component IN (SELECT component FROM components)"""

CAUSAL_STATES = "SELECT * EXCLUDE is_causal FROM ranking WHERE is_causal"

NORMAL_95 = 1.96
"""Standard errors on either side of a mean in its normal 95 % interval."""

# Data and failures are committed in one file: the footer of every part.
COMMIT_JSON = """[{"chunk": "INTEGER", "generation": "INTEGER", "units": "INTEGER",
  "failures": [{"unit_id": "VARCHAR", "error": "VARCHAR", "message": "VARCHAR",
    "traceback": "VARCHAR"}]}]"""

# The latest generation of a chunk tried all earlier failures again.
FAILURES = """
SELECT failure.*, chunk, generation FROM (
  SELECT unnest(failures) AS failure, chunk, generation FROM (
    SELECT * FROM commits QUALIFY generation = max(generation) OVER (PARTITION BY chunk)))
"""


STATISTICS_VIEWS = (
    "component_effects",
    "ranking",
    "causal_states",
    "controlled_effects",
    "overlap",
    "concentration",
    "set_effects",
    "set_curves",
)
"""Views over estimates, which take longer to make than the others (docs/statistics.md)."""

TABLES = ("captions", "slabs", "units", "components")
"""Tables of a run that are one file each."""


def any_file(_: str) -> str:
    """Return the condition of every file."""
    return "true"


def scores_of(
    parts: Sequence[str], schema: pa.Schema, *, where: Callable[[str], str] = any_file
) -> str:
    """Return the SELECT of the scores in `parts`, which are paths or globs that match a file.

    A query that reads a number which is not finite, or a word that is none of its column, fails and
    names its file. `schema` is that of the files; `where` returns the condition on a file, from the
    name of the column with its path.
    """
    checked = ", ".join(
        f"CASE WHEN {unfit} THEN error(file || ' {what}') ELSE {name} END AS {name}"
        for what, columns in ((NOT_FINITE, unfit_numbers), (ODD_WORDS, odd_words))
        for name, unfit in columns(schema).items()
    )
    files = read_parquet(parts, named=True)
    return f"SELECT * EXCLUDE file REPLACE ({checked}) FROM {files} WHERE {where('file')}"


def unfit_numbers(schema: pa.Schema) -> dict[str, str]:
    """Return for each column of numbers, by its identifier, the condition that one of a row's is
    not finite."""
    columns = zip(schema.names, schema.types, strict=True)
    conditions: dict[str, str] = {}
    for name, kind in ((identifier(name), kind) for name, kind in columns):
        if pa.types.is_floating(kind):
            conditions[name] = f"NOT isfinite({name})"
        elif kind in (pa.list_(pa.float32()), pa.list_(pa.float64())):
            conditions[name] = f"NOT isfinite(list_sum({name}))"
    return conditions


def odd_words(schema: pa.Schema) -> dict[str, str]:
    """Return for each column of WORDS the condition that a row has another word."""
    return {
        name: f"{name} NOT IN ({', '.join(map(quoted, words))})"
        for name, words in WORDS.items()
        if name in schema.names
    }


def commits_of(parts: Sequence[str], *, where: Callable[[str], str] = any_file) -> str:
    """Return the SELECT of the commits in `parts`; `where` is that of `scores_of`."""
    return f"""
SELECT commit.* FROM (
  SELECT unnest(from_json(decode(value), '{COMMIT_JSON}')) AS commit
  FROM parquet_kv_metadata({_listed(parts)})
  WHERE decode(key) = '{COMMITS_KEY}' AND {where("file_name")})
"""


def view_statements(
    tables: Mapping[str, str],
    *,
    scores: str,
    commits: str,
    set_members: str,
    statistics: Mapping[str, str],
) -> list[str]:
    """Return the CREATE VIEW statements over a run's files, each view after those it reads.

    `tables` and `statistics`, by the name of the table, `scores`, `commits` and `set_members` are
    the SELECTs of these.
    """
    ranking = f"FROM ({statistics['ranking']})"
    views = {
        **tables,
        "set_members": set_members,
        "scores": scores,
        "commits": commits,
        "failures": FAILURES,
        "trials": "SELECT * FROM scores JOIN captions USING (caption_id)",
        "effects": effects_of("trials"),
        "caption_effects": CAPTION_EFFECTS,
        **statistics,
        "component_effects": f"SELECT * EXCLUDE (rank, controls, is_causal) {ranking}",
        "ranking": f"{ranking} ORDER BY {RANKED_BY}",
        "causal_states": CAUSAL_STATES,
    }
    return [f"CREATE OR REPLACE VIEW {name} AS {body}" for name, body in views.items()]


def row_view_statements(
    table: str, views: Mapping[str, str], *, rows: str, commits: str
) -> list[str]:
    """Return the CREATE VIEW statements of a run without tables of its own, as an evaluation.

    `rows` and `commits` are the SELECTs of its rows, in the view `table`, and of its commits;
    `views` maps the names of others to SELECTs over these.
    """
    every = {table: rows, "commits": commits, "failures": FAILURES, **views}
    return [f"CREATE OR REPLACE VIEW {name} AS {body}" for name, body in every.items()]


def read_parquet(files: Sequence[str], *, named: bool = False) -> str:
    """Return the table function that reads Parquet files, given as paths or globs.

    Only columns in the files are read: by default DuckDB takes a folder `seed=99` for a column. If
    `named`, the column `file` holds a row's path.
    """
    options = "hive_partitioning = false" + (", filename = 'file'" if named else "")
    return f"read_parquet({_listed(files)}, {options})"


def exactly(path: str) -> str:
    """Return the glob that matches one path alone: DuckDB takes `*`, `?` and `[` for patterns."""
    return re.sub(r"[*?[]", r"[\g<0>]", path)


def _listed(parts: Sequence[str]) -> str:
    return "[" + ", ".join(map(quoted, parts)) + "]"


def quoted(text: str) -> str:
    """Return `text` as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return `name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
