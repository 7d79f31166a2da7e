"""The component to edit: the top-ranked text-encoder component of a trace run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jobs.query.rank import Choice, best_site
from jobs.query.select import opened_views
from jobs.runs.trace_run import open_run
from schemas.component import Part
from schemas.concept import Concept
from schemas.errors import ConceptError
from schemas.manifest import EditSite


def locate(location: str | Path, concepts: Sequence[Concept]) -> EditSite:
    """Return the text-encoder component with the highest mean indirect effect on the target score.

    The mean is over the captions of the concepts' attribute where all concepts are of one kind that
    the run traced, over all captions otherwise. Only components that an edit can change count:
    self_attn and mlp at the last subject token, under the run's first noise. ConceptError: the run
    has no such trial.
    """
    run = open_run(location)
    kinds = {concept.kind.value for concept in concepts}
    noise = run.plan.numerics.sweep[0]
    choice = Choice(part=Part.TEXT_ENCODER.value, measure="target", noise_sigmas=noise)
    with opened_views(run) as views:
        for attribute in (kinds.pop() if len(kinds) == 1 else None, None):
            site = best_site(views, replace(choice, attribute=attribute))
            if site:
                fields = {"run": str(location), "attribute": attribute, **site}
                return EditSite.model_validate(fields)
    raise ConceptError(
        f"run {location} has no trial of a text-encoder component yet: trace one or name a --layer"
    )
