"""Reading the rows of a user's table: CSV, JSON Lines, Parquet or YAML, each row with its line."""

# pyright: reportUnknownMemberType=false
# pyarrow leaves parts of some methods without types.

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from engine.files import is_file, read_bytes
from schemas.documents import (
    MOST_BYTES,
    MOST_YAML_BYTES,
    JsonError,
    SafeLoader,
    checked_text,
    is_mapping,
    json_value,
    yaml_root,
    yaml_value,
)
from schemas.errors import DqfError, first_line

Row = tuple[int, dict[str, object]]
"""A row's line in the file (its number in a Parquet file), from 1, and its fields by column.

Fields that are not given are the empty string."""
Problem = tuple[int, str]
"""A line that is not a row, and what is wrong with it."""
_Line = tuple[int, dict[str, object] | str]
"""A line that is a row or a problem."""
MOST_ROWS = 10_000_000
"""Most rows of a Parquet file, in which a few bytes can stand for any number."""
NULL = "tag:yaml.org,2002:null"


class _Text(SafeLoader):
    """YAML in which all but null is text: "no", "on" and "1984" are concepts like any other."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        letter: [(tag, pattern) for tag, pattern in resolvers if tag == NULL]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Format of a file of rows, and the error that is raised for another."""

    holds: str
    """Name of a row, in the singular: "caption"."""
    required: tuple[str, ...]
    optional: tuple[str, ...]
    error: type[DqfError]

    def read(self, path: Path) -> list[Row]:
        """Return the rows of `path` in order; `error` names the first line that is wrong."""
        rows, problems = self.read_all(path)
        if problems:
            line, wrong = problems[0]
            raise self.error(f"{path}, line {line}: {wrong}")
        return rows

    def read_all(self, path: Path) -> tuple[list[Row], list[Problem]]:
        """Return the rows of `path` in order, and the wrong lines.

        `error`: the file as a whole cannot be read, lacks a column or holds nothing.
        """
        readers = {
            ".csv": self._csv,
            ".jsonl": self._jsonl,
            ".parquet": self._parquet,
            ".yaml": self._yaml,
            ".yml": self._yaml,
        }
        reader = readers.get(path.suffix.lower())
        if reader is None:
            kinds = ".csv, .jsonl, .parquet or .yaml"
            raise self.error(f"{path}: {self.holds}s are read from {kinds} files")
        lines = list(reader(path))
        if not lines:
            raise self.error(f"{path} holds no {self.holds}")
        rows = [(line, row) for line, row in lines if isinstance(row, dict)]
        return rows, [(line, wrong) for line, wrong in lines if isinstance(wrong, str)]

    def _text(self, path: Path, *, most: int = MOST_BYTES) -> str:
        content = read_bytes(path, error=self.error, most=most)
        return checked_text(content, str(path), most=most, error=self.error)

    def _csv(self, path: Path) -> Iterator[_Line]:
        # Lines end as Python's `open` ends them, which csv counts.
        file = io.StringIO(self._text(path), newline="")
        reader = csv.DictReader(file, skipinitialspace=True, strict=True)
        try:
            if reader.fieldnames is None:
                return
            reader.fieldnames = [name.strip() for name in reader.fieldnames]
            self._check_columns(path, reader.fieldnames)
            for row in reader:
                if None in row:
                    yield reader.line_num, "more fields than columns"
                    continue
                yield reader.line_num, {name: value or "" for name, value in row.items()}
        except csv.Error as error:
            # `line_num` is the last row's: the one that is wrong starts after it.
            yield reader.line_num + 1, f"not CSV: {error}"

    def _jsonl(self, path: Path) -> Iterator[_Line]:
        # A JSON string may hold other line ends than these, as U+2028.
        for line, text in enumerate(self._text(path).split("\n"), start=1):
            if not text.strip():
                continue
            try:
                row = json_value(text)
            except JsonError as error:
                # The line within the text is always the first.
                yield line, str(error).replace("line 1 column", "column").removeprefix("is ")
                continue
            if not is_mapping(row):
                yield line, "not a JSON object"
                continue
            yield line, self._wrong(list(row)) or _filled(row)

    def _parquet(self, path: Path) -> Iterator[_Line]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not is_file(path):
            raise self.error(f"{path}: no such file")
        try:
            with pq.ParquetFile(path) as file:  # `read_table` takes columns from the path
                self._check_columns(path, file.schema_arrow.names)
                groups = [file.metadata.row_group(n) for n in range(file.num_row_groups)]
                size = sum(group.total_byte_size for group in groups)
                if size > MOST_BYTES or file.metadata.num_rows > MOST_ROWS:
                    limit = f"{MOST_ROWS:,} rows or {MOST_BYTES >> 20} MiB"
                    raise self.error(f"{path} has more than {limit}: give a part of it")
                rows = file.read().to_pylist()
        # OverflowError and ValueError: dates that Python does not have, names that are not UTF-8.
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise self.error(f"{path}: not a Parquet file: {first_line(error)}") from error
        yield from enumerate(map(_filled, rows), start=1)

    def _yaml(self, path: Path) -> Iterator[_Line]:
        name, error = str(path), self.error
        loader = _Text(self._text(path, most=MOST_YAML_BYTES))
        root = yaml_root(loader, name, error=error)
        for node in [] if root is None else self._list_of(path, root):
            line = node.start_mark.line + 1
            if not isinstance(node, yaml.MappingNode):
                yield line, "not a mapping"
                continue
            if wrong := self._wrong([str(key.value) for key, _ in node.value]):
                yield line, wrong
                continue
            row = yaml_value(loader, node, name, error=error)
            # Its tag may make something else of it, as `!!set` does.
            yield line, _filled(row) if is_mapping(row) else "not a mapping"

    def _list_of(self, path: Path, root: yaml.Node) -> list[yaml.Node]:
        """Return the items of a list, or of the one under the rows' name alone: `concepts:`."""
        name = f"{self.holds}s"
        if isinstance(root, yaml.MappingNode) and [k.value for k, _ in root.value] == [name]:
            root = root.value[0][1]
        if not isinstance(root, yaml.SequenceNode):
            raise self.error(f"{path} is not a list of {name}, nor one under `{name}:` alone")
        return root.value

    def _check_columns(self, path: Path, names: Sequence[str]) -> None:
        if wrong := self._wrong(names):
            raise self.error(f"{path}, line 1: {wrong}")

    def _wrong(self, names: Sequence[str]) -> str:
        """Return the fault of the columns: a missing, unknown or repeated one; "" for none.

        A misspelled one would be lost silently.
        """
        columns = (*self.required, *self.optional)
        missing = [name for name in self.required if name not in names]
        unknown = [name for name in names if name not in columns]
        wrong = f"no column {missing[0]!r}" if missing else ""
        wrong = wrong or (f"unknown column {unknown[0]!r}" if unknown else "")
        wrong = wrong or ("a column is named twice" if len(set(names)) < len(names) else "")
        return wrong and f"{wrong}; the columns are {', '.join(columns)}"


def _filled(row: Mapping[str, object]) -> dict[str, object]:
    return {name: "" if value is None else value for name, value in row.items()}
