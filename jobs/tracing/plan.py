"""Building and checking a plan: everything that can be wrong is said before a model loads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from engine.files import read_bytes
from jobs.input.captions import read_captions
from schemas.caption import Caption
from schemas.component import Component
from schemas.documents import first_message, read_json, read_yaml
from schemas.errors import PlanError
from schemas.intervention import Intervention
from schemas.plan import TracePlan
from schemas.unit import Unit
from schemas.window import expand_windows

if TYPE_CHECKING:
    from engine.model.components import Site
    from engine.model.tokens import Span

REFERENCES = 8
"""Captions of a plan that are its references where it needs some and names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPlan:
    """A plan that was checked against its model's configs and tokenizer."""

    plan: TracePlan
    components: tuple[Component, ...]
    """The components that it traces, in network order; consecutive ones together are one."""
    steps: int
    """Evaluations of the UNet in one run."""


def read_plan(path: Path) -> dict[str, object]:
    """Return the fields of a YAML plan file; `captions` there may be a path next to the file."""
    # JSON is YAML, and long plans of submitted jobs are read a hundred times faster so.
    read = read_json if path.suffix == ".json" else read_yaml
    fields = read(read_bytes(path, error=PlanError), str(path), error=PlanError)
    if not isinstance(fields, dict):
        raise PlanError(f"{path} is not a mapping of plan fields such as `model:` and `captions:`")
    if isinstance(fields.get("captions"), str):
        fields["captions"] = read_captions(path.parent / fields["captions"])
    return fields


def make_plan(fields: Mapping[str, object]) -> TracePlan:
    """Return the plan of `fields`, with the model's defaults for what is missing."""
    from engine.model import registry

    model = str(fields.get("model", "emoji-sd"))
    numerics = fields.get("numerics") or {}
    if not isinstance(numerics, Mapping):
        raise PlanError("`numerics` is not a mapping such as `steps: 20`")
    defaults = {
        "steps": registry.default_steps(model),
        "guidance": registry.default_guidance(model),
    }
    scorer = fields.get("scorer") or registry.default_scorer(model)
    complete = {**fields, "model": model, "scorer": scorer, "numerics": {**defaults, **numerics}}
    try:
        plan = TracePlan.model_validate(complete)
    except ValidationError as error:
        raise PlanError(first_message(error)) from error
    needed = {Intervention.MEAN, Intervention.OTHER_CAPTION} & set(plan.interventions)
    if needed and not plan.references:
        return plan.model_copy(update={"references": _spread(plan.captions)})
    return plan


def _spread(captions: Sequence[Caption]) -> tuple[str, ...]:
    """Return a few captions, evenly spread over all, as references."""
    texts = list(dict.fromkeys(caption.caption for caption in captions))
    count = min(REFERENCES, len(texts))
    return tuple(texts[n * len(texts) // count] for n in range(count))


def check_plan(plan: TracePlan) -> CheckedPlan:
    """Return the plan with the components it traces, having opened configs and tokenizer alone.

    ModelUnavailable, UnknownComponent, PlanError: what is wrong, in one sentence.
    """
    from engine.model.hub import config_folder

    config_folder(plan.model)  # before torch is imported, which takes seconds

    from engine.model.components import list_components, list_sites
    from engine.model.opening import check_model, count_steps, open_skeleton
    from engine.model.registry import pinned
    from engine.model.scorer import check_scorer
    from engine.tracing.interventions import component_groups, consecutive
    from engine.tracing.measures import check_measures

    check_scorer(plan.scorer)
    check_measures(plan.measures)
    numerics = plan.numerics
    steps = count_steps(plan.model, scheduler=numerics.scheduler, steps=numerics.steps)
    expand_windows(plan.windows, steps)
    _check_captions(plan)
    check_model(plan.model)
    skeleton = open_skeleton(plan.model)
    # Workers fetch later and elsewhere: the commit that was checked is the one they open.
    plan = plan.model_copy(update={"model": pinned(plan.model)})
    if plan.components is None:
        chosen = [c for c in list_components(skeleton, plan.kinds) if c.part in plan.parts]
        names = consecutive(chosen, plan.consecutive)
    else:
        names = plan.components
    traced = tuple(
        _joint(name, group)
        for name, group in component_groups(list_sites(skeleton), names).items()
        if group[0].component.part in plan.parts
    )
    _check_interventions(plan, traced)
    return CheckedPlan(plan=plan, components=traced, steps=steps)


def _check_captions(plan: TracePlan) -> None:
    """Raise PlanError if a subject or counterfactual is not to be found among the tokens."""
    from engine.model.opening import open_tokenizer
    from engine.model.tokens import find_subjects

    tokenizer = open_tokenizer(plan.model)
    _, spans = find_subjects(tokenizer, plan.captions)
    references = [Caption(caption=r, subject=r, attribute="-") for r in plan.references if r]
    if references:
        find_subjects(tokenizer, references)
    if plan.numerics.corruption == "counterfactual":
        _check_counterfactuals(tokenizer, plan.captions, spans)
    if Intervention.MATCHED in plan.interventions:
        pairs = zip(plan.captions, spans, strict=True)
        matched = [(c, span) for c, span in pairs if c.counterfactual is not None]
        if not matched:
            raise PlanError(
                "intervention matched needs captions with a counterfactual, another word of the "
                "subject's kind: give some the column `counterfactual`"
            )
        _check_counterfactuals(tokenizer, *zip(*matched, strict=True))


def _check_counterfactuals(
    tokenizer: Any, captions: Sequence[Caption], spans: Sequence["Span"]
) -> None:
    """Raise PlanError if a counterfactual has not as many tokens as its subject has in `spans`."""
    from engine.model.tokens import find_subjects

    replaced = [
        Caption(caption=c.counterfactual_text, subject=str(c.counterfactual), attribute="-")
        for c in captions
    ]
    for span, caption, other in zip(
        spans, captions, find_subjects(tokenizer, replaced)[1], strict=True
    ):
        if (span.start, span.stop, span.eos) != (other.start, other.stop, other.eos):
            raise PlanError(
                f"counterfactual {caption.counterfactual!r} has {other.stop - other.start} "
                f"tokens and {caption.subject!r} {span.stop - span.start}: give as many"
            )


def _check_interventions(plan: TracePlan, traced: Sequence[Component]) -> None:
    """Raise PlanError if a part has nothing to trace, an intervention no component or no source
    run."""
    from engine.tracing.interventions import allows, reference_runs

    for part in plan.parts:
        of_part = [component for component in traced if component.part is part]
        if not of_part:
            raise PlanError(f"no component of the {part} is among those to trace")
        for caption in plan.captions:
            unit = Unit(
                caption=caption,
                seed=0,
                draw=0,
                part=part,
                components=(),
                windows=(),
                interventions=plan.interventions,
                references=plan.references,
            )
            reference_runs(unit, plan.numerics)
    for intervention in plan.interventions:
        pairs = product(traced, plan.captions)
        if not any(allows(intervention, component, caption) for component, caption in pairs):
            raise PlanError(f"no component to trace can be used with intervention {intervention}")


def _joint(name: str, group: "Sequence[Site]") -> Component:
    """Return consecutive components as one, in the place of the first."""
    parameters = sum(site.component.num_parameters for site in group)
    return replace(group[0].component, name=name, num_parameters=parameters)
