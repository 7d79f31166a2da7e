"""Reading the rows of a user's table: CSV, JSON Lines or Parquet, each row with its line."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from schemas.errors import DqfError

Row = tuple[int, dict[str, object]]
"""A row's line in the file (its number in a Parquet file), from 1, and its fields by column.

Fields that are not given are the empty string."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What a file of rows must look like, and the error that says it does not."""

    holds: str
    """What the rows are, in the singular: "caption"."""
    required: tuple[str, ...]
    optional: tuple[str, ...]
    error: type[DqfError]

    def read(self, path: Path) -> list[Row]:
        """Return the rows of `path` in order; `error` names the first line that is wrong."""
        readers = {".csv": self._csv, ".jsonl": self._jsonl, ".parquet": self._parquet}
        reader = readers.get(path.suffix.lower())
        if reader is None:
            raise self.error(f"{path}: {self.holds}s are read from .csv, .jsonl or .parquet files")
        if not path.is_file():
            raise self.error(f"{path}: no such file")
        try:
            rows = list(reader(path))
        except (UnicodeDecodeError, csv.Error, OSError) as error:
            raise self.error(f"{path} cannot be read: {error}") from error
        if not rows:
            raise self.error(f"{path} holds no {self.holds}")
        return rows

    def _csv(self, path: Path) -> Iterator[Row]:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            if reader.fieldnames is None:
                return
            reader.fieldnames = [name.strip() for name in reader.fieldnames]
            self._check(path, 1, reader.fieldnames)
            for row in reader:
                if None in row:
                    raise self.error(f"{path}, line {reader.line_num}: more fields than columns")
                yield reader.line_num, {name: value or "" for name, value in row.items()}

    def _jsonl(self, path: Path) -> Iterator[Row]:
        for line, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise self.error(f"{path}, line {line}: not JSON: {error.msg}") from error
            if not isinstance(row, dict):
                raise self.error(f"{path}, line {line}: not a JSON object")
            self._check(path, line, list(row))
            yield line, _filled(row)

    def _parquet(self, path: Path) -> Iterator[Row]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except pa.ArrowException as error:
            raise self.error(f"{path}: not a Parquet file: {error}") from error
        self._check(path, 1, table.column_names)
        yield from enumerate((_filled(row) for row in table.to_pylist()), start=1)

    def _check(self, path: Path, line: int, names: Sequence[str]) -> None:
        """Refuse missing, unknown and repeated columns: a misspelt one would be lost silently."""
        known = (*self.required, *self.optional)
        missing = [name for name in self.required if name not in names]
        unknown = [name for name in names if name not in known]
        wrong = f"no column {missing[0]!r}" if missing else ""
        wrong = wrong or (f"unknown column {unknown[0]!r}" if unknown else "")
        wrong = wrong or ("a column is named twice" if len(set(names)) < len(names) else "")
        if wrong:
            raise self.error(f"{path}, line {line}: {wrong}; the columns are {', '.join(known)}")


def first_message(error: ValidationError) -> str:
    """Return what is wrong first, with the field's name and value, in one sentence."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {first['input']!r})" if where else message


def _filled(row: dict[str, object]) -> dict[str, object]:
    return {name: "" if value is None else value for name, value in row.items()}
