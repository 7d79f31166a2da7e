"""`dqf query`: SQL over runs, from an argument, a file, stdin or a shell."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options.captions import KnownOption, MinTotalEffectOption, caption_filter
from cli.options.completion import runs_or_views
from cli.options.runs import is_run, named_locations
from cli.printing.answers import column_rows, example_rows, show, view_rows
from cli.printing.lines import say
from cli.printing.output import FORMATS, Format, check_destination, format_of, print_rows
from engine.files import read_bytes
from schemas.documents import MOST_BYTES, checked_text
from schemas.errors import QueryRefused

if TYPE_CHECKING:
    from jobs.query.opened import Filters
    from jobs.runs.run import Run

STDIN = Path("-")


def query(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN... [SELECT]",
            help="Traces, evaluations or attacks by name, folder or URL, each as NAME=RUN to give "
            "it another name in SQL; then one SELECT. Without it: a shell, or stdin if it is not a "
            "terminal.",
            show_default=False,
            autocompletion=runs_or_views,
        ),
    ] = None,
    command: Annotated[str | None, typer.Option("--command", "-c", help="The SELECT.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="File that holds the SELECT; - is stdin.")
    ] = None,
    example: Annotated[str | None, typer.Option(help="Run a query that ships with dqf.")] = None,
    examples: Annotated[
        bool, typer.Option("--examples", help="List these queries and their questions.")
    ] = False,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema", help="List the views, those of a RUN, or the columns of named views."
        ),
    ] = False,
    output_format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"Format of the data: {FORMATS}.",
            show_default="by the file's name, otherwise table",
        ),
    ] = None,
    known: KnownOption = None,
    min_te: MinTotalEffectOption = None,
    out: Annotated[Path | None, typer.Option(help="File to write instead of stdout.")] = None,
) -> None:
    """Print the result of one SELECT over traces, evaluations or attacks.

    `dqf query --schema` lists the views, `dqf query --schema ranking` the columns of one. Each RUN
    is a schema with the run's name; views of the first run need no name before them:
    SELECT * FROM ranking JOIN other.ranking USING (component).
    """
    shown = output_format or format_of(out)
    check_destination(shown, output=out)
    if schema or examples:
        rows = _documented(words or []) if schema else example_rows()
        return print_rows(rows, shown, output=out)
    asked = [option for option in (command, file, example) if option is not None]
    if len(asked) > 1:
        raise QueryRefused("give one of --command, --file and --example")
    names, sql = (list(words or []), None) if asked else _split(words or [])
    runs = _open(names)
    only = _filters(runs, known, min_te)
    for name, condition in only.items():
        if condition:
            say(f"{name}: only captions with {condition} are read.", err=True)
    if example is not None:
        from jobs.query.examples import example_sql

        sql = example_sql(example, {name: run.noun for name, run in runs.items()})
    elif not asked and sql is None and sys.stdin is not None and sys.stdin.isatty():
        from prompt_toolkit.application import create_app_session
        from prompt_toolkit.output import create_output

        from cli.shell import run_shell

        # Data alone goes to stdout where that is a file or a pipe.
        terminal = create_output(sys.stdout if sys.stdout.isatty() else sys.stderr)
        with create_app_session(output=terminal):
            return run_shell(runs, shown, only=only)
    given = command if command is not None else sql
    sql = _read(file or STDIN) if given is None else given
    show(runs, sql, shown, only=only, output=out)


def _documented(words: Sequence[str]) -> list[dict[str, object]]:
    """Return the columns of the named views, otherwise the views of the named runs, or all."""
    every = view_rows()
    names = {row["view"] for row in every}
    runs = [word for word in words if word not in names and is_run(word)]
    if views := [word for word in words if word not in runs]:
        return column_rows(views)
    nouns = {run.noun for run in _open(runs).values()} if runs else {row["of"] for row in every}
    return [row for row in every if row["of"] in nouns]


def _split(words: Sequence[str]) -> tuple[list[str], str | None]:
    """Return the runs and the statement: the last word, if it has a space and is not a run."""
    *runs, last = words or [""]
    names_a_run = len(last.split()) < 2 or is_run(last)
    return ([*words], None) if names_a_run else (runs, last)


def _filters(runs: "Mapping[str, Run[Any]]", known: str | None, min_te: float | None) -> "Filters":
    """Return which captions are read of each trace; QueryRefused: an option is for traces alone."""
    from jobs.runs.trace_run import TraceRun

    for run in runs.values():
        if not isinstance(run, TraceRun) and (known is not None or min_te is not None):
            raise QueryRefused(
                f"--known and --min-te choose captions of a trace, and {run.location} is an "
                f"{run.noun}: leave them out"
            )
    traces = {name: run for name, run in runs.items() if isinstance(run, TraceRun)}
    return {name: caption_filter(run, known, min_te) for name, run in traces.items()}


def _open(names: Sequence[str]) -> "dict[str, Run[Any]]":
    if not names:
        raise QueryRefused('name a run to query: `dqf query RUN "SELECT * FROM ranking"`')
    from jobs.runs.kinds import open_any

    return {name: open_any(location) for name, location in named_locations(names).items()}


def _read(file: Path) -> str:
    if file == STDIN and sys.stdin is None:  # Python's, of a process that was given none
        raise QueryRefused("stdin is closed: give the SELECT as a word, or a --file that holds it")
    content = sys.stdin.buffer.read() if file == STDIN else read_bytes(file, error=QueryRefused)
    return checked_text(content, str(file), most=MOST_BYTES, error=QueryRefused)
