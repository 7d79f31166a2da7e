"""Reading a concept file: CSV, JSON Lines or Parquet with columns concept, target, kind."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from schemas.concept import Concept, same_text
from schemas.errors import ConceptError

COLUMNS = ("concept", "target", "kind")
Row = tuple[int, dict[str, object]]
"""A line's number in the file, from 1, and its fields by column."""


def read_concepts(path: Path) -> tuple[Concept, ...]:
    """Return the concepts of `path` in order; ConceptError names the first line that is wrong."""
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConceptError(f"{path}: concepts are read from .csv, .jsonl or .parquet files")
    if not path.is_file():
        raise ConceptError(f"{path}: no such file")
    try:
        numbered = [(line, _concept(path, line, row)) for line, row in reader(path)]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise ConceptError(f"{path}: cannot be read: {error}") from error
    if not numbered:
        raise ConceptError(f"{path}: holds no concept")
    _refuse_repeats(path, numbered)
    return tuple(concept for _, concept in numbered)


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True, strict=True)
        if reader.fieldnames is None:
            return
        _check_columns(path, [name.strip() for name in reader.fieldnames])
        reader.fieldnames = [name.strip() for name in reader.fieldnames]
        for row in reader:
            if None in row:
                raise ConceptError(f"{path}, line {reader.line_num}: more fields than columns")
            yield reader.line_num, {k: v or "" for k, v in row.items()}


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for line, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConceptError(f"{path}, line {line}: not JSON: {error.msg}") from error
        if not isinstance(row, dict):
            raise ConceptError(f"{path}, line {line}: not a JSON object")
        yield line, {k: "" if v is None else v for k, v in row.items()}


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise ConceptError(f"{path}: not a Parquet file: {error}") from error
    _check_columns(path, table.column_names)
    for line, row in enumerate(table.to_pylist(), start=1):
        yield line, {k: "" if v is None else v for k, v in row.items()}


def _check_columns(path: Path, names: Sequence[str]) -> None:
    if "concept" not in names:
        raise ConceptError(f"{path}, line 1: no column `concept` (columns: {', '.join(names)})")
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        raise ConceptError(f"{path}, line 1: unknown column {unknown[0]!r}")
    if len(set(names)) < len(names):
        raise ConceptError(f"{path}, line 1: a column is named twice")


def _concept(path: Path, line: int, row: dict[str, object]) -> Concept:
    try:
        return Concept.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        field = f"{first['loc'][0]}: " if first["loc"] else ""
        message = first["msg"].removeprefix("Value error, ")
        raise ConceptError(f"{path}, line {line}: {field}{message}") from error


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
