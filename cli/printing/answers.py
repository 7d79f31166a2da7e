"""Printing the answer of a query: rows, documentation of columns, examples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.printing.lines import say, say_folded
from cli.printing.output import Format, put
from schemas.errors import QueryRefused

if TYPE_CHECKING:
    from jobs.query.opened import Filters
    from jobs.runs.run import Run


def show(
    runs: "Mapping[str, Run[Any]]",
    sql: str,
    output_format: Format,
    *,
    only: "Filters",
    output: Path | None = None,
) -> None:
    """Print or write the result of one SELECT over runs, and note its number of rows."""
    from jobs.query.select import open_query

    for run in runs.values():
        if output is not None and Path(run.location).resolve() in output.resolve().parents:
            raise QueryRefused(f"{output} is in a run's folder: write it elsewhere")
        say_unscored(run)
    is_text = output_format is not Format.PARQUET
    with open_query(runs, sql, as_text=is_text, only=only) as result:
        count = put(result.schema, result.batches, output_format, output=output)
    if output is not None or output_format is Format.TABLE:
        rows = f"{count} row{'' if count == 1 else 's'}"
        say(f"{rows} in {output}" if output else rows, err=True)


def say_unscored(run: "Run[Any]") -> None:
    """Say how many units of a run have no scores, if any."""
    from jobs.runs.progress import unscored

    if sentence := unscored(run):
        say_folded(sentence, err=True)


def view_rows() -> list[dict[str, object]]:
    from schemas.documentation import VIEWS_OF

    return [
        {"of": noun, "view": view.name, "columns": len(view.columns), "meaning": view.meaning}
        for noun, views in VIEWS_OF.items()
        for view in views
    ]


def column_rows(views: Sequence[str]) -> list[dict[str, object]]:
    from schemas.documentation import documented

    return [
        {
            "view": view.name,
            "column": column.name,
            "type": column.type,
            "unit": column.unit,
            "meaning": column.meaning,
        }
        for view in documented(views)
        for column in view.columns
    ]


def example_rows() -> list[dict[str, object]]:
    from jobs.query.examples import EXAMPLES

    return [
        {
            "name": example.name,
            "of": example.of,
            "runs": example.num_runs,
            "answers": example.answers,
            "read": example.read,
        }
        for example in EXAMPLES
    ]
