"""Building and checking a plan: everything that can be wrong is said before a model loads."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from schemas.component import Component
from schemas.errors import PlanError
from schemas.plan import Caption, TracePlan

REQUIRED = ("caption", "subject", "attribute")
"""Columns that a caption file must have; `target` may be there besides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan that was checked against its model's configs and tokenizer."""

    plan: TracePlan
    components: tuple[Component, ...]
    """The components that it traces, in network order."""


def read_captions(path: Path) -> tuple[Caption, ...]:
    """Return the captions of a CSV, JSONL or Parquet file; PlanError names the wrong line."""
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise PlanError(f"{path}: captions are read from .csv, .jsonl or .parquet files")
    if not path.is_file():
        raise PlanError(f"{path}: no such file")
    try:
        captions = tuple(_caption(path, line, row) for line, row in reader(path))
    except (ValueError, csv.Error, OSError) as error:
        raise PlanError(f"{path} cannot be read: {error}") from error
    if not captions:
        raise PlanError(f"{path} holds no caption")
    return captions


def _csv_rows(path: Path) -> Iterator[tuple[int, dict]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        for row in reader:
            yield reader.line_num, row


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict]]:
    for line, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if text.strip():
            row = json.loads(text)
            if not isinstance(row, dict):
                raise PlanError(f"{path}, line {line}: not a JSON object")
            yield line, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict]]:
    yield from enumerate(pq.read_table(path).to_pylist(), start=1)


def _caption(path: Path, line: int, row: Mapping[str, object]) -> Caption:
    missing = [column for column in REQUIRED if column not in row]
    if missing:
        raise PlanError(
            f"{path}: no column {missing[0]!r}; the columns are caption, subject, attribute "
            "and optionally target"
        )
    fields = {column: row[column] for column in REQUIRED} | {"target": row.get("target") or None}
    try:
        return Caption.model_validate(fields)
    except ValidationError as error:
        raise PlanError(f"{path}, line {line}: {first_message(error)}") from error


def read_plan(path: Path) -> dict[str, object]:
    """Return the fields of a YAML plan file; `captions` there may be a path beside the file."""
    if not path.is_file():
        raise PlanError(f"{path}: no such file")
    try:
        fields = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise PlanError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
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
    from engine.captions import find_subject
    from engine.components import choose, list_components
    from engine.models import open_skeleton, open_tokenizer

    tokenizer = open_tokenizer(plan.model)
    for caption in plan.captions:
        find_subject(tokenizer, caption)
    known = list_components(open_skeleton(plan.model))
    chosen = known if plan.components is None else choose(known, plan.components)
    traced = tuple(component for component in chosen if component.part in plan.parts)
    for part in plan.parts:
        if not any(component.part is part for component in traced):
            raise PlanError(f"no component of the {part} is among those to trace")
    return Planned(plan=plan, components=traced)


def first_message(error: ValidationError) -> str:
    """Return what is wrong first, with the field's name, in one sentence."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {first['input']!r})" if where else message


def pick(captions: Sequence[Caption], *, each: int) -> tuple[Caption, ...]:
    """Return the first `each` captions of every attribute: a balanced subset."""
    taken: dict[str, int] = {}
    picked = []
    for caption in captions:
        taken[caption.attribute] = taken.get(caption.attribute, 0) + 1
        if taken[caption.attribute] <= each:
            picked.append(caption)
    return tuple(picked)
