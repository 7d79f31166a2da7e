"""Which component to edit: the top-ranked text-encoder component of a trace run."""

from collections.abc import Sequence
from pathlib import Path

from jobs.edit_report import Located
from jobs.query import run_query
from jobs.store import Run, open_run
from schemas.concept import Concept
from schemas.errors import ConceptError

TOP = """
SELECT component, sum(mean_ie * num_captions) / sum(num_captions) AS mean_ie
FROM ranking
WHERE part = 'text-encoder' AND against = 'target' AND (? = '' OR attribute = ?)
GROUP BY component ORDER BY mean_ie DESC, component LIMIT 1
"""
"""Every caption counts once: `ranking` holds the mean over captions of each attribute."""


def locate(path: Path, concepts: Sequence[Concept]) -> Located:
    """Return the text-encoder component with the highest mean indirect effect on the target score.

    The mean is over the captions of the concepts' attribute where all concepts are of one kind
    that the run traced, over all captions otherwise. ConceptError: the run has no such trial.
    """
    run = open_run(path)
    kinds = {concept.kind.value for concept in concepts}
    for attribute in (kinds.pop() if len(kinds) == 1 else "", ""):
        found = _top(run, attribute)
        if found:
            component, mean_ie = found
            return Located(
                component=component, run=str(path), attribute=attribute or None, mean_ie=mean_ie
            )
    raise ConceptError(
        f"run {path} has no trial of a text-encoder component yet: trace one or name a --layer"
    )


def _top(run: Run, attribute: str) -> tuple[str, float] | None:
    rows = run_query(run, TOP, [attribute, attribute]).to_pylist()
    return (rows[0]["component"], rows[0]["mean_ie"]) if rows else None
