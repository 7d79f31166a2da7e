"""Writing batches of rows in each format; no batch is held longer than its writing takes."""

# pyright: reportUnknownMemberType=false
# pyarrow leaves parts of some methods without types.

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from io import IOBase
from typing import IO, TYPE_CHECKING, Any, cast
from uuid import uuid4

from schemas.documents import is_mapping
from schemas.errors import DqfError
from schemas.printable import printable

if TYPE_CHECKING:
    import pyarrow as pa

Rows = Iterable["pa.RecordBatch"]
"""Batches of rows of one schema."""

SMALLEST_FIXED = 1e-3
"""Smaller numbers, such as p-values, are shown with an exponent."""


def write_json(schema: "pa.Schema", batches: Rows, file: IO[str]) -> None:
    """Write one array of objects."""
    separator = "[\n"
    for row in _objects(schema, batches):
        text = _json(row, indent=2)
        file.write(separator + "  " + text.replace("\n", "\n  "))
        separator = ",\n"
    file.write("[]\n" if separator == "[\n" else "\n]\n")


def write_jsonl(schema: "pa.Schema", batches: Rows, file: IO[str]) -> None:
    """Write one object per line."""
    for row in _objects(schema, batches):
        file.write(_json(row) + "\n")


def write_csv(schema: "pa.Schema", batches: Rows, file: IO[str]) -> None:
    """Write comma-separated values; lists and structs are written as JSON."""
    # Python 3.11 quotes no carriage return but one of the line's end, and readers end a line at it.
    writer = csv.writer(_CsvLines(file), lineterminator="\r\n")
    writer.writerow(schema.names)
    for batch in batches:
        writer.writerows(zip(*map(_csv_values, columns_of(batch)), strict=True))


class _CsvLines:
    """A text file of lines that end in a newline, written by whoever ends them in CRLF."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, line: str) -> int:
        """Write a line."""
        return self._file.write(line.removesuffix("\r\n") + "\n")


def write_markdown(schema: "pa.Schema", batches: Rows, file: IO[str]) -> None:
    """Write a Markdown table."""
    file.write(_markdown_row(map(_markdown_cell, schema.names)))
    file.write(_markdown_row("---:" if is_number(kind) else "---" for kind in schema.types))
    for batch in batches:
        for row in zip(*map(values, columns_of(batch)), strict=True):
            file.write(_markdown_row(map(_markdown_cell, row)))


def write_parquet(schema: "pa.Schema", batches: Rows, file: IO[bytes]) -> None:
    """Write a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.PythonFile(cast("Any", file), mode="w")  # the stubs ask for an IOBase
    try:
        # PythonFile takes any binary file; its annotation is too narrow.
        sink = pa.PythonFile(cast(IOBase, file), mode="w")
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            for batch in batches:
                batch.validate(full=True)  # whole numbers have 39 digits in SQL, here 38
                writer.write_batch(batch)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        # For example a duration in months and days.
        raise DqfError(
            f"a column has a type or value that Parquet lacks, CAST it: {error}"
        ) from error


def cell(value: object) -> str:
    """Return a value as text for people: four decimals, or three digits of a tiny number."""
    if value is None:
        return ""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.2e}" if 0 < abs(value) < SMALLEST_FIXED else f"{value:.4f}"
    return printable(str(value), keep="\n")


def is_number(kind: "pa.DataType") -> bool:
    """Return whether a column's values are numbers, which are aligned to the right."""
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def columns_of(batch: "pa.RecordBatch") -> "Sequence[pa.Array[Any]]":
    """Return the columns of a batch."""
    return cast("list[pa.Array[Any]]", batch.columns)


def values(column: "pa.Array[Any]") -> list[Any]:
    """Return a column's values as Python objects, decimals with all of their digits."""
    items = column.to_pylist()
    return list(map(_exact, items)) if "decimal" in str(column.type) else items


class _Digits(Decimal):
    """A decimal number that prints as in SQL: every digit, no exponent."""

    def __str__(self) -> str:
        return format(self, "f")

    __repr__ = __str__


def _exact(value: object) -> object:
    """Return a value in which decimals print as in SQL; DuckDB's huge integers arrive as some."""
    if isinstance(value, Decimal):
        return _Digits(value) if value.as_tuple().exponent else int(value)
    if isinstance(value, list):
        return [_exact(inner) for inner in cast("list[object]", value)]
    if isinstance(value, tuple):  # of a key and its value: Arrow's maps are lists of them
        return tuple(_exact(inner) for inner in cast("tuple[object, ...]", value))
    if is_mapping(value):
        return {key: _exact(inner) for key, inner in value.items()}
    return value


def _json(value: object, *, indent: int | None = None) -> str:
    """Return a value as JSON; a decimal is a number of all its digits, anything else text."""
    mark = uuid4().hex

    def other(value: object) -> str:
        return f"{mark}{value!s}" if isinstance(value, _Digits) else str(value)

    text = json.dumps(value, indent=indent, ensure_ascii=False, default=other)
    return re.sub(f'"{mark}([^"]*)"', r"\1", text) if mark in text else text


def _objects(schema: "pa.Schema", batches: Rows) -> Iterator[dict[str, object]]:
    for batch in batches:
        columns = (map(_json_value, values(column)) for column in columns_of(batch))
        for row in zip(*columns, strict=True):
            yield dict(zip(schema.names, row, strict=True))


def _json_value(value: object) -> object:
    """Return a value for JSON: numbers that JSON does not have become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_json_value(inner) for inner in cast("list[object]", value)]
    if is_mapping(value):
        return {key: _json_value(inner) for key, inner in value.items()}
    return value


def _csv_values(column: "pa.Array[Any]") -> list[Any]:
    import pyarrow as pa

    items = values(column)
    if pa.types.is_nested(column.type):
        # The value of a union may be a text or a number.
        return [
            _json(_json_value(item)) if _is_nested(item) else item
            for item in cast("list[object]", items)
        ]
    return items


def _is_nested(value: object) -> bool:
    return isinstance(value, list) or is_mapping(value)


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _markdown_cell(value: object) -> str:
    return cell(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", "<br>")
