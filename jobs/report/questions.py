"""The report of an evaluation or an attack: the answers to the questions that ship with dqf."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from engine.files import write_whole
from jobs.query.examples import EXAMPLES
from jobs.query.opened import Views
from jobs.query.select import opened_views
from jobs.query.whole_rows import checked_rows
from jobs.report.images import picture_uri
from jobs.report.template import rendered
from jobs.runs.png import CorruptImage
from jobs.runs.progress import progress_of
from jobs.runs.run import Run

FAILURES = "SELECT unit_id, error, message FROM failures ORDER BY unit_id"
MOST_ROWS = 200
"""Rows that the page has of each answer; `dqf query` has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about the run with its answer, a table."""

    name: str
    """The name of its example query."""
    text: str
    read: str
    """How to read the answer."""
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    left: int
    """Number of rows that the page does not have."""


def write_questions(run: Run[Any], path: Path) -> int:
    """Write the report of an evaluation or an attack to `path`; return its bytes.

    StoreError, QueryRefused: the run cannot be read, or its rows are not those of its plan.
    """
    with checked_rows(run), opened_views(run) as views:
        questions = [*_questions(views, run.noun)]
        failures = views.query(FAILURES).to_pylist()
    content = rendered(
        "questions.html",
        {},
        run=run,
        title="/".join(run.location.rstrip("/").split("/")[-2:]),
        progress=progress_of(run),
        questions=questions,
        failures=failures,
        pictures=[*_pictures(run)],
    )
    write_whole(path, content)
    return len(content)


def _questions(views: Views, noun: str) -> Iterator[Question]:
    for example in EXAMPLES:
        if example.of == noun:
            table = views.query(example.sql)
            yield Question(
                name=example.name,
                text=example.answers,
                read=example.read,
                columns=tuple(table.column_names),
                rows=tuple(map(_cells, table.slice(0, MOST_ROWS).to_pylist())),
                left=max(0, table.num_rows - MOST_ROWS),
            )


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(map(_cell, row.values()))


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    return ", ".join(map(str, cast("list[object]", value))) if isinstance(value, list) else value


def _pictures(run: Run[Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and the data: URI of each picture that a local run keeps."""
    for path in sorted(Path(run.location, "images").glob("*.png")):
        try:
            yield path.stem, picture_uri(path)
        except CorruptImage:  # the tables are shown without it
            continue
