"""The component to edit: the top-ranked text-encoder component of a trace run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.query.select import run_query
from jobs.runs.trace_run import TraceRun, open_run
from schemas.concept import Concept
from schemas.errors import ConceptError
from schemas.manifest import EditSite
from schemas.views import NORMAL_95

TOP = f"""
SELECT component, token, mean_ie, se_ie, num_captions,
  if(attributes = 1, low, mean_ie - {NORMAL_95} * se_ie) AS ie_low,
  if(attributes = 1, high, mean_ie + {NORMAL_95} * se_ie) AS ie_high
FROM (
  SELECT component, token, count(*) AS attributes, min(ie_low) AS low, max(ie_high) AS high,
    sum(mean_ie * num_captions) / sum(num_captions) AS mean_ie,
    sqrt(sum((se_ie * num_captions) ** 2)) / sum(num_captions) AS se_ie,
    sum(num_captions)::BIGINT AS num_captions
  FROM ranking JOIN components USING (component, part)
  WHERE part = 'text-encoder' AND measure = 'target' AND (? = '' OR attribute = ?)
    AND intervention = 'restore' AND token = 'last_subject' AND kind IN ('self_attn', 'mlp')
    AND component NOT LIKE '%..%'
  GROUP BY component, token)
ORDER BY mean_ie DESC, component LIMIT 1
"""
"""Every caption counts once: `ranking` holds the mean over captions of each attribute, whose
interval is taken as it is; that over several attributes is the normal one."""


def locate(location: str | Path, concepts: Sequence[Concept]) -> EditSite:
    """Return the text-encoder component with the highest mean indirect effect on the target score.

    The mean is over the captions of the concepts' attribute where all concepts are of one kind that
    the run traced, over all captions otherwise. Only components that an edit can change count:
    self_attn and mlp at the last subject token. ConceptError: the run has no such trial.
    """
    run = open_run(location)
    kinds = {concept.kind.value for concept in concepts}
    for attribute in (kinds.pop() if len(kinds) == 1 else "", ""):
        found = _top(run, attribute)
        if found:
            return EditSite(run=str(location), attribute=attribute or None, **found)
    raise ConceptError(
        f"run {location} has no trial of a text-encoder component yet: trace one or name a --layer"
    )


def _top(run: TraceRun, attribute: str) -> dict[str, Any] | None:
    rows = run_query(run, TOP, [attribute, attribute]).to_pylist()
    return rows[0] if rows else None
