"""The components to edit: the top-ranked one of a text encoder in a trace run, or a set of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jobs.query.rank import Choice, best_site
from jobs.query.select import opened_views
from jobs.runs.trace_run import open_run
from schemas.component import Part
from schemas.component_set import ComponentSet
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


OF_SET = """
SELECT mean_ie, se_ie, ie_low, ie_high, num_captions FROM set_effects
WHERE intervention = 'restore' AND measure = 'target' AND set_name = $set AND attribute = $attribute
ORDER BY noise_sigmas, patch_kind DESC LIMIT 1
"""


def locate_set(
    location: str | Path, name: str, concepts: Sequence[Concept]
) -> tuple[EditSite, tuple[str, ...]]:
    """Return the first component of a run's set with the effect of all of them together, and the
    names of all.

    Of the sets of one name that is chosen whose attribute is the concepts' kind. ConceptError: the
    run has no such set, or it has components of the denoiser.
    """
    run = open_run(location)
    kinds = {concept.kind.value for concept in concepts}
    found = _set_named(run.sets, name, kinds, run.name)
    if any(member.token is None for member in found.members):
        raise ConceptError(
            f"set {name!r} of run {run.name} has components of the denoiser: --set edits sets of "
            "text encoders alone"
        )
    attribute = found.attribute or (kinds.pop() if len(kinds) == 1 else None)
    with opened_views(run) as views:
        rows = views.query(OF_SET, {"set": name, "attribute": attribute}).to_pylist()
    components = tuple(dict.fromkeys(member.component.name for member in found.members))
    effect = rows[0] if rows else {}
    fields = {"run": str(location), "attribute": attribute, "token": found.token, **effect}
    return EditSite.model_validate({"component": components[0], **fields}), components


def _set_named(sets: Sequence[ComponentSet], name: str, kinds: set[str], run: str) -> ComponentSet:
    named = {each.attribute: each for each in sets if each.name == name}
    if not named:
        names = ", ".join(dict.fromkeys(each.name for each in sets)) or "none"
        raise ConceptError(f"run {run} has no set {name!r}: it has {names}")
    for attribute in (None, *kinds):
        if attribute in named and (attribute is None or len(kinds) == 1):
            return named[attribute]
    raise ConceptError(
        f"run {run} has the set {name!r} for {', '.join(map(str, named))}: edit concepts of one of "
        "these kinds alone"
    )
