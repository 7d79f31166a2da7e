"""Building and checking a plan: everything that can be wrong is said before a model loads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from jobs.rows import Table, first_message
from schemas.component import Component
from schemas.errors import PlanError, first_line
from schemas.plan import Caption, TracePlan

TABLE = Table(
    holds="caption",
    required=("caption", "subject", "attribute"),
    optional=("target",),
    error=PlanError,
)
"""What a caption file looks like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan that was checked against its model's configs and tokenizer."""

    plan: TracePlan
    components: tuple[Component, ...]
    """The components that it traces, in network order."""


def read_captions(path: Path) -> tuple[Caption, ...]:
    """Return the captions of a CSV, JSONL or Parquet file; PlanError names the wrong line."""
    return tuple(_caption(path, line, row) for line, row in TABLE.read(path))


def _caption(path: Path, line: int, row: Mapping[str, object]) -> Caption:
    try:
        return Caption.model_validate({**row, "target": row.get("target") or None})
    except ValidationError as error:
        raise PlanError(f"{path}, line {line}: {first_message(error)}") from error


def read_plan(path: Path) -> dict[str, object]:
    """Return the fields of a YAML plan file; `captions` there may be a path beside the file."""
    if not path.is_file():
        raise PlanError(f"{path}: no such file")
    try:
        fields = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise PlanError(f"{path} is not YAML: {first_line(error)}") from error
    if not isinstance(fields, dict):
        raise PlanError(f"{path} is not a mapping of plan fields such as `model:` and `captions:`")
    if isinstance(fields.get("captions"), str):
        fields["captions"] = read_captions(path.parent / fields["captions"])
    return fields


def make_plan(fields: Mapping[str, object]) -> TracePlan:
    """Return the plan of `fields`, with the model's defaults for what is missing."""
    from engine import registry

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
        return TracePlan.model_validate(complete)
    except ValidationError as error:
        raise PlanError(first_message(error)) from error


def check_plan(plan: TracePlan) -> Planned:
    """Return the plan with the components it traces, having opened configs and tokenizer alone.

    ModelUnavailable, UnknownComponent, PlanError: what is wrong, in one sentence.
    """
    from engine.captions import find_subjects
    from engine.components import choose, list_components
    from engine.models import open_skeleton, open_tokenizer
    from engine.scoring import check_scorer

    check_scorer(plan.scorer)
    find_subjects(open_tokenizer(plan.model), plan.captions)
    known = list_components(open_skeleton(plan.model))
    chosen = known if plan.components is None else choose(known, plan.components)
    traced = tuple(component for component in chosen if component.part in plan.parts)
    for part in plan.parts:
        if not any(component.part is part for component in traced):
            raise PlanError(f"no component of the {part} is among those to trace")
    return Planned(plan=plan, components=traced)


def pick(captions: Sequence[Caption], *, each: int) -> tuple[Caption, ...]:
    """Return the first `each` captions of every attribute: a balanced subset."""
    taken: dict[str, int] = {}
    picked = []
    for caption in captions:
        taken[caption.attribute] = taken.get(caption.attribute, 0) + 1
        if taken[caption.attribute] <= each:
            picked.append(caption)
    return tuple(picked)
