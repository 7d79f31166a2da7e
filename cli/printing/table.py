"""A table of text for people: what fits on a terminal, every column in a file or a pipe."""

import shutil
from collections.abc import Iterable
from itertools import chain, islice
from typing import IO, TYPE_CHECKING

from cli.printing.formats import Rows, cell, columns_of, is_number, values
from cli.printing.lines import say
from schemas.printable import printable

if TYPE_CHECKING:
    import pyarrow as pa

TERMINAL_ROWS = 100
"""Number of rows that a terminal gets, from the first on."""
FILE_ROWS = 10_000
"""Number of rows that a file or a pipe gets: the columns' widths need all of them at once."""
EDGES = 2
"""Characters that a table takes besides its columns."""
NARROWEST = 12
"""The smallest width, in characters, to which text may be folded."""
GAP = 3
"""Characters that a column takes in addition to its text."""


def write_table(schema: "pa.Schema", batches: Rows, file: IO[str]) -> None:
    """Write a table, and note on stderr which rows, and on a terminal which columns, it lacks."""
    is_terminal = file.isatty()
    rows = chain.from_iterable(zip(*map(values, columns_of(b)), strict=True) for b in batches)
    most = TERMINAL_ROWS if is_terminal else FILE_ROWS
    shown = [tuple(map(cell, row)) for row in islice(rows, most)]
    left = sum(1 for _ in rows)
    numbers = [is_number(kind) for kind in schema.types]
    titles = [printable(name) for name in schema.names]
    width = shutil.get_terminal_size().columns if is_terminal else _whole_width(titles, shown)
    fitting = _fitting(titles, shown, numbers, width=width) if is_terminal else len(titles)
    titles = titles[:fitting]
    _print(titles, [row[:fitting] for row in shown], numbers, file, width=width)
    if left:
        _note(f"the first {len(shown)} of {len(shown) + left} rows are shown")
    if fitting < len(schema.names):
        _note(f"columns that do not fit: {', '.join(schema.names[fitting:])}")


def _note(line: str) -> None:
    say(f"{line}; other formats have all", err=True)


def _whole_width(names: list[str], rows: list[tuple[str, ...]]) -> int:
    """Return the characters of a line that folds no cell."""
    from rich.cells import cell_len

    columns = ((name, *(row[n] for row in rows)) for n, name in enumerate(names))
    widths = (
        max(cell_len(line) for text in column for line in text.split("\n")) for column in columns
    )
    return EDGES + sum(GAP + width for width in widths)


def _fitting(
    names: list[str], rows: list[tuple[str, ...]], numbers: list[bool], *, width: int
) -> int:
    """Return the number of columns, at least one, that fit if text is folded and numbers are
    not."""
    left = width - 1
    for number, (name, is_narrow) in enumerate(zip(names, numbers, strict=True)):
        longest = max(map(len, (name, *(row[number] for row in rows))))
        left -= GAP + (longest if is_narrow else min(longest, NARROWEST))
        if left < 0:
            return max(number, 1)
    return len(names)


def _print(
    names: list[str],
    rows: Iterable[tuple[str, ...]],
    numbers: list[bool],
    file: IO[str],
    *,
    width: int,
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for name, is_right in zip(names, numbers, strict=False):
        justify = "right" if is_right else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=is_right)
    for row in rows:
        table.add_row(*row)
    Console(file=file, markup=False, emoji=False, highlight=False, width=width).print(table)
