"""Printing data to stdout or into a file, in the format that the user chooses."""

import io
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, cast

import typer

from cli.printing.formats import (
    Rows,
    write_csv,
    write_json,
    write_jsonl,
    write_markdown,
    write_parquet,
)
from cli.printing.lines import PrintableFile
from cli.printing.table import write_table
from engine.files import check_output, whole_file
from schemas.errors import DqfError

if TYPE_CHECKING:
    import pyarrow as pa


class Format(StrEnum):
    """The formats in which data are printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    MARKDOWN = "markdown"

    @property
    def is_for_people(self) -> bool:
        """Whether numbers are rounded and only the most important columns may be shown."""
        return self in (Format.TABLE, Format.MARKDOWN)


WRITERS = {
    Format.TABLE: write_table,
    Format.JSON: write_json,
    Format.JSONL: write_jsonl,
    Format.CSV: write_csv,
    Format.PARQUET: write_parquet,
    Format.MARKDOWN: write_markdown,
}
SUFFIXES = {
    ".json": Format.JSON,
    ".jsonl": Format.JSONL,
    ".csv": Format.CSV,
    ".parquet": Format.PARQUET,
    ".md": Format.MARKDOWN,
    ".txt": Format.TABLE,
}
"""Formats by the suffix of a file's name."""

FORMATS = ", ".join(Format)
FormatOption = Annotated[
    Format, typer.Option("--format", metavar="FORMAT", help=f"Format of the data: {FORMATS}.")
]
"""The option of every command that prints data."""


class OutputRefused(DqfError):
    """A format that its destination cannot take, or a file that cannot be written."""


def print_table(table: "pa.Table", output_format: Format, *, output: Path | None = None) -> None:
    """Print an Arrow table to stdout or write it into a file."""
    put(table.schema, table.to_batches(), output_format, output=output)


def print_rows(
    rows: list[dict[str, object]], output_format: Format, *, output: Path | None = None
) -> None:
    """Print rows of one shape to stdout or write them into a file."""
    import pyarrow as pa

    print_table(pa.Table.from_pylist(rows), output_format, output=output)


def put(
    schema: "pa.Schema", batches: Rows, output_format: Format, *, output: Path | None = None
) -> int:
    """Write rows to stdout as they come, or all or none to a file; return their number.

    OutputRefused: Parquet on a terminal, or a file that cannot be written.
    """
    check_destination(output_format, output=output)
    is_binary = output_format is Format.PARQUET
    if output is None:
        file: IO[Any] = sys.stdout.buffer if is_binary else sys.stdout
        # The table's own colors are escapes too, so its cells are made printable one by one.
        if sys.stdout.isatty() and output_format is not Format.TABLE:
            file = cast("IO[Any]", PrintableFile(sys.stdout))
        return _write(schema, batches, output_format, file)
    with whole_file(output, error=OutputRefused) as file:
        if is_binary:
            return _write(schema, batches, output_format, file)
        text = io.TextIOWrapper(file, encoding="utf-8", newline="\n", write_through=True)
        try:
            return _write(schema, batches, output_format, text)
        finally:
            text.detach()


def format_of(output: Path | None) -> Format:
    """Return the format that a file's name ends in, a table for stdout.

    OutputRefused: the name ends in none.
    """
    if output is None:
        return Format.TABLE
    if (found := SUFFIXES.get(output.suffix.lower())) is None:
        raise OutputRefused(
            f"--out {output} says no format: end its name with {', '.join(SUFFIXES)}, or give "
            "--format"
        )
    return found


def check_destination(output_format: Format, *, output: Path | None) -> None:
    """Raise OutputRefused for Parquet on a terminal and for a file that may not be written."""
    if output_format is Format.PARQUET and output is None and sys.stdout.isatty():
        raise OutputRefused("a terminal cannot show Parquet: give --out FILE or pipe it")
    if output is not None:
        check_output(output, error=OutputRefused)


def _write(schema: "pa.Schema", batches: Rows, output_format: Format, file: IO[Any]) -> int:
    counts: list[int] = []
    WRITERS[output_format](schema, _counted(batches, counts), file)
    return sum(counts)


def _counted(batches: Rows, counts: list[int]) -> Iterable["pa.RecordBatch"]:
    for batch in batches:
        counts.append(batch.num_rows)
        yield batch
