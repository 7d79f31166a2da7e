"""Printing a ranking for people: states in families; what a family shares is printed once."""

import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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

    The leaders alone of several rankings stand in one table without headings, where it fits. In a
    file or a pipe all columns stand. `effect` says what the numbers are.
    """
    there = [name for name in PLACES if all(name in row for row in rows[:1])]
    alike = _alike(rows, there)
    rest = [name for name in there if name not in alike]
    heading = "; ".join([effect, *_said(rows[:1], alike)])
    by_part = _grouped(rows, ("part",))
    leaders = _with_place([*OF_LEADERS, *columns], by_part, rest)
    families = _grouped(rows, ("attribute", "part"))
    if 1 < len(families) == len(rows) and _fits(leaders, rows):
        shared = [(states[0]["part"], _shared(states, rest)) for states in by_part]
        places = [f"{part}: {', '.join(said)}" for part, said in shared if said]
        say_folded("; ".join([heading, *places]))
        return _print_groups([("", rows)], leaders)
    say_folded(heading)
    _print_groups(
        [
            ("; ".join([f"{r[0]['attribute']}, {r[0]['part']}", *_shared(r, rest)]), r)
            for r in families
        ],
        _with_place(columns, families, rest),
    )


def _print_groups(groups: Sequence[tuple[str, Sequence[Row]]], columns: Sequence[Column]) -> None:
    """Print groups of rows, each below its heading if it has one, and the footnotes."""
    rows = [row for _, states in groups for row in states]
    shown = _fitting(columns, rows)
    widths = [_width_of(column, rows) for column in shown]
    say(_line(shown, [column.title for column in shown], widths))
    for heading, states in groups:
        if heading:
            say_folded(heading)
        for row in states:
            say(_line(shown, [column.text(row) for column in shown], widths))
    for column in shown:
        if column.footnote and any(column.text(row) == NOTHING for row in rows):
            say_folded(column.footnote)


def _with_place(
    columns: Sequence[Column], groups: Sequence[Sequence[Row]], rest: Sequence[str]
) -> list[Column]:
    """Return the columns, after the component's one with the places that a group does not share."""
    at = {id(row): _place(row, rest, _alike(rows, rest)) for rows in groups for row in rows}
    where = Column(title="where", text=lambda row: at[id(row)], is_left=True)
    after = [column.title for column in columns].index("component") + 1
    return [*columns[:after], *([where] if any(at.values()) else []), *columns[after:]]


def _grouped(rows: Sequence[Row], names: Sequence[str]) -> list[list[Row]]:
    """Return rows in groups of the same values, in the order of their first rows."""
    groups = defaultdict[tuple[Any, ...], list[Row]](list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return list(groups.values())


def _shared(rows: Sequence[Row], rest: Sequence[str]) -> list[str]:
    """Return the places, of some, that rows share."""
    return _said(rows[:1], _alike(rows, rest))


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
    """Return the noise, steps, token and captions of a row that its group does not share."""
    own = [name for name in names if name not in said]
    return ", ".join(_short(name, row[name]) for name in own)


def _short(name: str, value: Any) -> str:
    if name == "noise_sigmas":
        return f"noise {value:g}"
    return _words(name, value) if name == "num_captions" else str(value)


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


def columns_joined(names: Mapping[str, str]) -> list[Column]:
    """Return the columns of states whose exact and screened effects are joined."""
    return [
        Column(title="rank", text=lambda row: str(row["rank"])),
        Column(title="component", text=lambda row: names[row["component"]], is_left=True),
        Column(title="effect", text=_number("mean_ie")),
        Column(title="95 % interval", text=_interval("ie_low", "ie_high")),
        Column(title="exact alone", text=_number("exact_ie")),
        Column(title="its interval", text=_interval("exact_low", "exact_high")),
        Column(title="screened", text=_number("screened_ie")),
        Column(title="weight", text=lambda row: f"{row['weight']:.2f}", is_extra=True),
        Column(title="gain", text=lambda row: _ratio(row["gain"]), is_extra=True),
        Column(title="chosen", text=lambda row: str(row["chosen"]), is_left=True, is_extra=True),
        FULL_NAME,
    ]


def _ratio(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"


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


UNDEFINED = f"recovery {NOTHING}: undefined, total effect too near zero; --noise may be too weak"


FULL_NAME = Column(
    title="full name", text=lambda row: str(row["component"]), is_left=True, is_extra=True
)
"""As `--component` and `--layer` take it."""


OF_LEADERS = (
    Column(title="attribute", text=lambda row: str(row["attribute"]), is_left=True),
    Column(title="part", text=lambda row: str(row["part"]), is_left=True, is_extra=True),
)
"""Columns of a table of several rankings' leaders."""


def _fits(columns: Sequence[Column], rows: Sequence[Row]) -> bool:
    """Return whether the main columns fit on the terminal; in a file all do."""
    return not sys.stdout.isatty() or _room(columns, rows) >= 0


def _room(columns: Sequence[Column], rows: Sequence[Row]) -> int:
    """Return the terminal's columns that the main ones leave free."""
    taken = sum(len(GAP) + _width_of(c, rows) for c in columns if not c.is_extra)
    return shutil.get_terminal_size().columns - taken


def _fitting(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """Return the columns to print: in a file all; on a terminal the main ones and what fits."""
    if not sys.stdout.isatty():
        return list(columns)
    room = _room(columns, rows)
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
