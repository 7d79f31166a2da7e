"""Printing a ranking for people: states in families; what a family shares is printed once."""

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from cli.printing.formats import SMALLEST_FIXED
from cli.printing.lines import say, say_folded

Row = Mapping[str, Any]
GAP = "  "
NOTHING = "-"
"""The text of a value that is undefined."""
PLACES = ("patch_kind", "noise_sigmas", "steps", "token", "num_captions")
"""Columns that are said once where they are alike: in the caption, or after a family's name. Rows
of a run of one noise need not have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the printed ranking."""

    title: str
    text: Callable[[Row], str]
    is_left: bool = False
    is_extra: bool = False
    """Whether it is shown only where there is room."""
    footnote: str = ""
    """Said below the table if a cell is `NOTHING`."""


def print_ranking(rows: Sequence[Row], *, effect: str, columns: Sequence[Column]) -> None:
    """Print rows by attribute and part, with every column that fits on the terminal.

    In a file or a pipe all columns stand. `effect` says what the numbers are.
    """
    there = [name for name in PLACES if all(name in row for row in rows[:1])]
    alike, families = _alike(rows, there), _families(rows)
    rest = [name for name in there if name not in alike]
    own = [_alike(states, rest) for states in families]
    at = {id(r): _place(r, rest, said) for f, said in zip(families, own, strict=True) for r in f}
    where = Column(title="where", text=lambda row: at[id(row)], is_left=True)
    after = [column.title for column in columns].index("component") + 1
    places = [where] if any(at.values()) else []
    shown = _fitting([*columns[:after], *places, *columns[after:]], rows)
    widths = [_width_of(column, rows) for column in shown]
    say_folded("; ".join([effect, *_said(rows[:1], alike)]))
    say(_line(shown, [column.title for column in shown], widths))
    for states, said in zip(families, own, strict=True):
        family = f"{states[0]['attribute']}, {states[0]['part']}"
        say_folded("; ".join([family, *_said(states, said)]))
        for row in states:
            say(_line(shown, [column.text(row) for column in shown], widths))
    for column in shown:
        if column.footnote and any(column.text(row) == NOTHING for row in rows):
            say_folded(column.footnote)


def _families(rows: Sequence[Row]) -> list[list[Row]]:
    grouped = groupby(rows, lambda row: (row["attribute"], row["part"]))
    return [list(states) for _, states in grouped]


def _alike(rows: Sequence[Row], names: Iterable[str]) -> list[str]:
    """Return those columns that have one value in all rows."""
    return [name for name in names if len({row[name] for row in rows}) == 1]


def _said(rows: Sequence[Row], names: Iterable[str]) -> list[str]:
    return [_words(name, row[name]) for name in names for row in rows[:1]]


def _words(name: str, value: object) -> str:
    if name == "num_captions":
        return "1 caption" if value == 1 else f"{value} captions"
    if name == "noise_sigmas":
        return f"noise {value:g} sigmas"
    return f"{value} patches" if name == "patch_kind" else f"{name} {value}"


def _place(row: Row, names: Iterable[str], said: Sequence[str]) -> str:
    """Return the noise, steps and token of a row that its family does not share."""
    own = [name for name in names if name not in said]
    return ", ".join(
        f"noise {row[name]:g}" if name == "noise_sigmas" else str(row[name]) for name in own
    )


def columns_of(
    names: Mapping[str, str], last_ranks: Sequence[int], rows: Sequence[Row]
) -> list[Column]:
    """Return the columns of states ranked by their effect; `names` has components' short names."""
    last = {id(row): rank for row, rank in zip(rows, last_ranks, strict=True)}
    return [
        Column(title="rank", text=lambda row: _ranks(row["rank"], last[id(row)])),
        Column(title="component", text=lambda row: names[row["component"]], is_left=True),
        Column(title="effect", text=_number("mean_ie")),
        Column(title="95 % interval", text=_interval("ie_low", "ie_high")),
        Column(title="q", text=_probability("q_causal")),
        Column(title="verdict", text=_verdict, is_left=True),
        Column(title="recovery", text=_share, is_extra=True, footnote=UNDEFINED),
        Column(title="its interval", text=_shares, is_extra=True),
        Column(title="q in run", text=_probability("q_run"), is_extra=True),
        FULL_NAME,
    ]


def columns_beyond(names: Mapping[str, str]) -> list[Column]:
    """Return the columns of states ranked by their effect beyond a control."""
    return [
        Column(title="component", text=lambda row: names[row["component"]], is_left=True),
        Column(title="beyond", text=_number("mean_difference")),
        Column(title="95 % interval", text=_interval("difference_low", "difference_high")),
        Column(title="q", text=_probability("q_difference")),
        Column(title="restored", text=_number("mean_ie")),
        Column(title="control", text=_number("control_ie"), is_extra=True),
        Column(title="its interval", text=_interval("control_low", "control_high"), is_extra=True),
        Column(title="its q", text=_probability("q_control"), is_extra=True),
        FULL_NAME,
    ]


def _ranks(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _number(name: str) -> Callable[[Row], str]:
    return lambda row: _signed(row[name])


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}".replace("-0.000", "+0.000")


def _interval(low: str, high: str) -> Callable[[Row], str]:
    """Return the function that formats an interval; an end is null where it has no bound."""

    def text(row: Row) -> str:
        if row[low] is None and row[high] is None:
            return "none"
        ends = (_signed(row[low]) or "-inf", _signed(row[high]) or "inf")
        return f"[{', '.join(end.removeprefix('+') for end in ends)}]"

    return text


def _probability(name: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        value = row[name]
        if value is None:
            return ""
        return "<0.001" if value < SMALLEST_FIXED else f"{value:.3f}"

    return text


def _verdict(row: Row) -> str:
    if row["intervention"] != "restore":
        return ""
    return "causal" if row["is_causal"] else "no"


def _share(row: Row) -> str:
    return NOTHING if row["mean_recovery"] is None else _percent(row["mean_recovery"])


def _shares(row: Row) -> str:
    if row["recovery_low"] is None or row["recovery_high"] is None:
        return ""
    return f"[{_percent(row['recovery_low'])}, {_percent(row['recovery_high'])}]"


def _percent(share: float) -> str:
    return f"{round(share, 2) + 0.0:.0%}"  # + 0.0 makes -0.0 of a share just below zero 0.0


UNDEFINED = f"recovery {NOTHING}: undefined, as the total effect is too near zero"


FULL_NAME = Column(
    title="full name", text=lambda row: str(row["component"]), is_left=True, is_extra=True
)
"""As `--component` and `--layer` take it."""


def _fitting(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """Return the columns to print: in a file all; on a terminal the main ones and what fits."""
    if not sys.stdout.isatty():
        return list(columns)
    room = shutil.get_terminal_size().columns
    room -= sum(len(GAP) + _width_of(c, rows) for c in columns if not c.is_extra)
    shown: list[Column] = []
    for column in columns:
        if column.is_extra:
            room -= len(GAP) + _width_of(column, rows)
        if not column.is_extra or room >= 0:
            shown.append(column)
    return shown


def _width_of(column: Column, rows: Sequence[Row]) -> int:
    return max(map(_width, (column.title, *map(column.text, rows))))


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _line(columns: Sequence[Column], texts: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(_cells(columns, texts, widths)).rstrip()[1:]


def _cells(columns: Sequence[Column], texts: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for column, text, width in zip(columns, texts, widths, strict=True):
        space = " " * (width - _width(text))
        yield GAP + (text + space if column.is_left else space + text)
