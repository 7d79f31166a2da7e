"""`dqf export`: the tables of a run as files that need nothing else."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options.arguments import RunArgument
from cli.options.progress import with_progress_options
from cli.options.runs import run_location
from cli.printing.answers import say_unscored
from cli.printing.lines import note, say
from schemas.table_format import TableFormat


@with_progress_options
def export(
    run: RunArgument,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.duckdb|DIR",
            help="DuckDB file, replaced if it exists; or a folder, new or empty, for a file of "
            "each table.",
        ),
    ],
    table_format: Annotated[
        TableFormat | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"Format of the tables: {', '.join(TableFormat)}.",
            show_default="duckdb, for a folder parquet",
        ),
    ] = None,
) -> None:
    """Write every view of a run as a table that needs neither dqf nor the run's folder.

    A DuckDB file opens in every DuckDB from 1.2 on. `dqf query --schema` says what the tables are.
    """
    from jobs.query.export import export_run, format_of
    from jobs.runs.trace_run import open_run

    chosen = table_format or format_of(out)
    opened = open_run(run_location(run))
    say_unscored(opened)
    export_run(opened, out, chosen, note=note)
    say(out)
