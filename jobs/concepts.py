"""Reading a concept file: CSV, JSON Lines or Parquet with columns concept, target, kind."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from jobs.rows import Table, first_message
from schemas.concept import Concept, same_text
from schemas.errors import ConceptError

TABLE = Table(
    holds="concept", required=("concept",), optional=("target", "kind"), error=ConceptError
)
"""What a concept file looks like."""


def read_concepts(path: Path) -> tuple[Concept, ...]:
    """Return the concepts of `path` in order; ConceptError names the first line that is wrong."""
    numbered = [(line, _concept(path, line, row)) for line, row in TABLE.read(path)]
    _refuse_repeats(path, numbered)
    return tuple(concept for _, concept in numbered)


def _concept(path: Path, line: int, row: Mapping[str, object]) -> Concept:
    try:
        return Concept.model_validate(row)
    except ValidationError as error:
        raise ConceptError(f"{path}, line {line}: {first_message(error)}") from error


def _refuse_repeats(path: Path, numbered: Sequence[tuple[int, Concept]]) -> None:
    seen: dict[str, tuple[int, Concept]] = {}
    for line, concept in numbered:
        key = " ".join(concept.concept.casefold().split())
        first_line, first = seen.setdefault(key, (line, concept))
        if first is concept:
            continue
        where = f"{path}, line {line}: concept {concept.concept!r}"
        if first.kind == concept.kind and same_text(first.target_text, concept.target_text):
            raise ConceptError(f"{where} repeats line {first_line}")
        raise ConceptError(f"{where} conflicts with line {first_line}, which has another target")
