"""Rankings of a run's causal states: which may be asked for, and the SELECTs that rank."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import pyarrow as pa

from jobs.query.opened import Views
from jobs.runs.trace_run import TraceRun
from schemas.errors import PlanError
from schemas.intervention import CONTROLS, Intervention
from schemas.views import IS_RANKED, NORMAL_95, STATE

STEPS = "step_start || ':' || step_stop AS steps"
PLACE = ("component", "token", STEPS, "patch_kind", "noise_sigmas")
IS_CUT_POINT = """patch_kind = 'state' AND token = 'all'
  AND component IN (SELECT component FROM components WHERE is_cut_point) AS is_cut_point"""
SHOWN = (
    *("attribute", "part", "measure", "rank", *PLACE, "mean_ie", "ie_low", "ie_high"),
    *("q_causal", "is_causal", "mean_recovery", "num_captions", IS_CUT_POINT),
)
"""Columns of a table of ranked states."""
BEYOND = (
    *("attribute", "part", "measure", *PLACE, "mean_difference", "difference_low"),
    *("difference_high", "q_difference", "mean_ie", "control_ie", "control_low", "control_high"),
    *("q_control", "num_captions"),
)
"""Columns of a table of states that are ranked by their effect beyond a control's."""
LEADING = ("attribute", "part", *PLACE, "mean_ie", "se_ie", "num_captions")
OF_GROUP = """($measure IS NULL OR measure = $measure) AND ($part IS NULL OR part = $part)
  AND ($patch_kind IS NULL OR patch_kind = $patch_kind)
  AND ($noise_sigmas IS NULL OR noise_sigmas = $noise_sigmas)"""
CHOSEN = f"{OF_GROUP} AND ($attribute IS NULL OR attribute = $attribute)"
"""Condition on the rows of a choice."""
GROUP = ("attribute", "part", "measure", "intervention", "patch_kind", "noise_sigmas")
"""Columns of `ranking` that tell its rankings apart."""
HIGHS = f"""
SELECT {", ".join(GROUP)}, list(coalesce(ie_high, 'inf'::DOUBLE)) AS highs FROM ranking
WHERE {CHOSEN} AND ($kind IS NULL OR intervention = $kind) GROUP BY ALL
"""
MEANS = f"""(
  SELECT {", ".join(STATE)}, intervention, avg(ie) AS mean_ie,
    stddev_samp(ie) / sqrt(count(*)) AS se_ie, count(*) AS num_captions
  FROM caption_effects WHERE {IS_RANKED} GROUP BY ALL)"""
"""The means of `ranking` without its tests, which take long while a run grows."""
RESTORED_SCORES = f"""(
  SELECT {", ".join(STATE)}, intervention, avg(patched) AS mean_restored,
    count(*) AS num_captions
  FROM (
    SELECT {", ".join(STATE)}, intervention, caption_id, avg(patched) AS patched
    FROM effects WHERE {IS_RANKED} GROUP BY ALL)
  GROUP BY ALL)"""
"""The mean restored score of each state over captions, as the paper reports it."""
OVERLAPS = f"""
FROM overlap
WHERE {OF_GROUP} AND ($attribute IS NULL OR $attribute IN (attribute_a, attribute_b))
ORDER BY ALL
"""
CONCENTRATIONS = f"FROM concentration WHERE {CHOSEN} ORDER BY ALL"

# Every caption counts once: `ranking` holds the mean over captions of each attribute, whose
# interval is taken as it is; that over several attributes is the normal one.
SITES = f"""
SELECT component, token, mean_ie, se_ie, num_captions,
  if(attributes = 1, low, mean_ie - {NORMAL_95} * se_ie) AS ie_low,
  if(attributes = 1, high, mean_ie + {NORMAL_95} * se_ie) AS ie_high
FROM (
  SELECT component, token, count(*) AS attributes, min(ie_low) AS low, max(ie_high) AS high,
    sum(mean_ie * num_captions) / sum(num_captions) AS mean_ie,
    sqrt(sum((se_ie * num_captions) ** 2)) / sum(num_captions) AS se_ie,
    sum(num_captions)::BIGINT AS num_captions
  FROM ranking JOIN components USING (component, part)
  WHERE {CHOSEN} AND intervention = 'restore' AND token = 'last_subject'
    AND kind IN ('self_attn', 'mlp') AND component NOT LIKE '%..%'
  GROUP BY component, token, noise_sigmas)
ORDER BY mean_ie DESC, component LIMIT 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The states that are asked for; None stands for all."""

    attribute: str | None = None
    part: str | None = None
    measure: str | None = None
    intervention: str | None = Intervention.RESTORE
    patch_kind: str | None = None
    noise_sigmas: float | None = None

    @property
    def parameters(self) -> Mapping[str, object]:
        """The values in CHOSEN."""
        texts = {
            "attribute": self.attribute,
            "part": self.part,
            "measure": self.measure,
            "patch_kind": self.patch_kind,
        }
        # DuckDB does not take Python's enums.
        plain = {name: value and str(value) for name, value in texts.items()}
        return {**plain, "noise_sigmas": self.noise_sigmas}


def sigmas(noise: float) -> str:
    """Return a noise as text, without the decimals of a whole number."""
    return str(noise).removesuffix(".0")


def check_choice(run: TraceRun, choice: Choice) -> None:
    """Raise PlanError if the run has no scores of the choice."""
    plan = run.plan
    available = {
        "attribute": [*dict.fromkeys(caption.attribute for caption in plan.captions)],
        "part": [part.value for part in plan.parts],
        "measure": plan.measures,
        "intervention": [intervention.value for intervention in plan.interventions],
        "patch_kind": [patch.value for patch in plan.patches],
    }
    for name, values in available.items():
        value: str | None = getattr(choice, name)
        if value is not None and value not in values:
            raise PlanError(
                f"run {run.name} has no {name.removesuffix('_kind')} {str(value)!r}: it has "
                f"{', '.join(values)}"
            )
    noise, noises = choice.noise_sigmas, plan.numerics.sweep
    if noise is not None and noise not in noises:
        listed = ", ".join(map(sigmas, noises)) if any(noises) else "none in sigmas"
        raise PlanError(f"run {run.name} has no noise {sigmas(noise)}: it has {listed}")


def check_control(intervention: Intervention) -> None:
    """Raise PlanError if an intervention is not a control."""
    if intervention not in CONTROLS:
        raise PlanError(f"--beyond is one of {', '.join(CONTROLS)}, not {intervention.value!r}")


def check_threshold(threshold: float, choice: Choice) -> None:
    """Raise PlanError if a threshold is not finite, or an intervention other than restore is
    chosen."""
    if not isfinite(threshold):
        raise PlanError(f"--as-published is a score such as 0.2, not {threshold}")
    if choice.intervention != Intervention.RESTORE:
        raise PlanError(f"--as-published ranks restored runs, not those of {choice.intervention}")


def ranked(
    views: Views, choice: Choice, *, columns: Sequence[str] = ("*",), top: int | None = None
) -> pa.Table:
    """Return the chosen states of `ranking`, the largest effects first.

    Of each attribute, part, intervention, kind of patch, noise and measure the first `top` are
    returned, or all.
    """
    effect = {"by": "mean_ie", "kind": "intervention"}
    return _states(views, choice, "ranking", columns, **effect, top=top)


def last_ranks(views: Views, choice: Choice, states: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return for each state of the choice the largest rank that its interval allows.

    That is the number of states of its ranking less those whose interval lies below; `rank` is the
    first such rank.
    """
    highs = {
        tuple(row[name] for name in GROUP): sorted(row["highs"])
        for row in views.query(HIGHS, {**choice.parameters, "kind": _kind(choice)}).to_pylist()
    }
    last: list[int] = []
    for state in states:
        ends = highs[tuple(state[name] for name in GROUP)]
        low = -inf if state["ie_low"] is None else state["ie_low"]
        last.append(len(ends) - bisect_left(ends, low))
    return last


def ranked_beyond(views: Views, choice: Choice, *, top: int | None = None) -> pa.Table:
    """Return the restored states by their effect beyond the control that the choice names."""
    effect = {"by": "mean_difference", "kind": "control"}
    return _states(views, choice, "controlled_effects", BEYOND, **effect, top=top)


def ranked_as_published(
    views: Views, choice: Choice, *, threshold: float, top: int | None = None
) -> pa.Table:
    """Return the restored states by their mean restored score, as Basu et al. 2024 rank them.

    `is_causal` is whether that reaches the threshold: no corrupted run, control or test is asked.
    """
    is_causal = f"mean_restored >= {threshold!r} AS is_causal"
    columns = ("attribute", "part", "measure", *PLACE, "mean_restored", is_causal, "num_captions")
    effect = {"by": "mean_restored", "kind": "intervention"}
    return _states(views, choice, RESTORED_SCORES, columns, **effect, top=top)


def leading(views: Views, choice: Choice) -> pa.Table:
    """Return the state of the largest mean effect so far, of each attribute, part and measure."""
    return _states(views, choice, MEANS, LEADING, by="mean_ie", kind="intervention", top=1)


def overlaps(views: Views, choice: Choice) -> pa.Table:
    """Return how many causal states pairs of attributes share."""
    return views.query(OVERLAPS, choice.parameters)


def concentrations(views: Views, choice: Choice) -> pa.Table:
    """Return in how few components the effects of each attribute, part and measure are."""
    return views.query(CONCENTRATIONS, choice.parameters)


def best_site(views: Views, choice: Choice) -> dict[str, object] | None:
    """Return the self-attention or MLP with the largest effect at the last subject token.

    Its mean is over the captions of all chosen attributes, under one noise. None: none was traced.
    """
    rows = views.query(SITES, choice.parameters).to_pylist()
    return rows[0] if rows else None


def without_one_noise(run: TraceRun, table: pa.Table) -> pa.Table:
    """Return a table of a run; without its column of noises where the run has one noise."""
    has_one = len(run.plan.numerics.sweep) == 1 and "noise_sigmas" in table.column_names
    return table.drop_columns(["noise_sigmas"]) if has_one else table


def _states(
    views: Views,
    choice: Choice,
    view: str,
    columns: Sequence[str],
    *,
    by: str,
    kind: str,
    top: int | None,
) -> pa.Table:
    """Return columns of the chosen states of a view; `kind` is its column of interventions."""
    order = f"{by} DESC, component, token, step_start, step_stop"
    group = f"attribute, part, {kind}, patch_kind, noise_sigmas, measure"
    sql = f"""
SELECT {", ".join(columns)} FROM {view} WHERE {CHOSEN} AND ($kind IS NULL OR {kind} = $kind)
QUALIFY $top IS NULL OR row_number() OVER (PARTITION BY {group} ORDER BY {order}) <= $top
ORDER BY {group}, {order}"""
    return views.query(sql, {**choice.parameters, "kind": _kind(choice), "top": top})


def _kind(choice: Choice) -> str | None:
    # DuckDB does not take Python's enums.
    return choice.intervention and str(choice.intervention)
