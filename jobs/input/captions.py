"""Captions from a user's file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from jobs.input.rows import Table
from schemas.caption import Caption
from schemas.documents import first_message
from schemas.errors import PlanError

TABLE = Table(
    holds="caption",
    required=("caption", "subject", "attribute"),
    optional=("target", "counterfactual"),
    error=PlanError,
)
"""Format of a caption file."""


def read_captions(path: Path) -> tuple[Caption, ...]:
    """Return the captions of a CSV, JSONL or Parquet file; PlanError names the wrong line."""
    return tuple(_caption(path, line, row) for line, row in TABLE.read(path))


def _caption(path: Path, line: int, row: Mapping[str, object]) -> Caption:
    try:
        optional = {name: row.get(name) or None for name in TABLE.optional}
        return Caption.model_validate({**row, **optional})
    except ValidationError as error:
        raise PlanError(f"{path}, line {line}: {first_message(error)}") from error


def pick(captions: Sequence[Caption], *, each: int) -> tuple[Caption, ...]:
    """Return the first `each` captions of every attribute: a balanced subset."""
    taken: dict[str, int] = {}
    picked: list[Caption] = []
    for caption in captions:
        taken[caption.attribute] = taken.get(caption.attribute, 0) + 1
        if taken[caption.attribute] <= each:
            picked.append(caption)
    return tuple(picked)
