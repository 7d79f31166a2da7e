"""Printing tables of data to stdout in the format that the user asks for."""

import csv
import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pyarrow as pa


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


FormatOption = Annotated[Format, typer.Option("--format", help="How to print the data.")]
"""The option that every command which prints data has."""


def print_table(table: "pa.Table", output_format: Format) -> None:
    """Print an Arrow table to stdout."""
    if output_format is Format.JSON:
        json.dump(table.to_pylist(), sys.stdout, indent=2, ensure_ascii=False, default=str)
        sys.stdout.write("\n")
    elif output_format is Format.CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows(zip(*table.to_pydict().values(), strict=True))
    else:
        _print_rich(table)


def print_rows(rows: list[dict[str, object]], output_format: Format) -> None:
    """Print rows of one shape to stdout."""
    import pyarrow as pa

    print_table(pa.Table.from_pylist(rows), output_format)


def _print_rich(table: "pa.Table") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=SIMPLE_HEAD)
    for name, column in zip(table.column_names, table.columns, strict=True):
        is_number = str(column.type) in {"double", "float"} or "int" in str(column.type)
        shown.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in table.to_pylist():
        shown.add_row(*(_cell(value) for value in row.values()))
    # Piped output is not wrapped to a terminal's width.
    console = Console(markup=False, highlight=False)
    wide = Console(markup=False, highlight=False, width=max(console.width, 240))
    (console if sys.stdout.isatty() else wide).print(shown)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
