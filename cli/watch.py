"""`dqf trace status`, `logs`, `stop` and `list`: watching runs, wherever they are driven."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.job import shared
from cli.options.arguments import RunArgument
from cli.options.home import runs_folder
from cli.options.runs import run_location
from cli.printing.lines import say
from cli.printing.output import Format, FormatOption, print_rows
from schemas.short_names import short_names

if TYPE_CHECKING:
    from jobs.runs.trace_run import TraceRun

AddressOption = Annotated[
    str | None,
    typer.Option(help="Address of the cluster whose job works on the run, http://HEAD:8265."),
]


def status(run: RunArgument, output_format: FormatOption = Format.TABLE) -> None:
    """Show a run's progress and its leading components so far, from its folder alone."""
    from jobs.runs.kinds import open_any
    from jobs.runs.trace_run import TraceRun
    from jobs.tracing.status import status_of

    opened = open_any(run_location(run))
    row: dict[str, object] = asdict(status_of(opened))
    if output_format is Format.TABLE:
        print_rows([_standing(row)], output_format)
        if isinstance(opened, TraceRun):
            _print_leaders(opened)
        return
    if output_format is Format.JSON and isinstance(opened, TraceRun):
        row["leading"] = _leaders(opened)
    print_rows([row], output_format)


def _standing(row: Mapping[str, Any]) -> dict[str, object]:
    """Return a run's status for people: whole numbers, without empty columns."""
    rates = {"units_per_minute": "units/min", "eta_minutes": "minutes left"}
    shown = {rates.get(name, name): value for name, value in row.items() if value not in (None, "")}
    return {
        name: _whole(value) if name in rates.values() else value for name, value in shown.items()
    }


def _whole(value: float) -> str:
    return str(round(value)) if value == 0 or value >= 0.5 else "<1"


def _leader(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, object]:
    error = "" if row["se_ie"] is None else f" +- {row['se_ie']:.3f}"
    return {
        "attribute": row["attribute"],
        "part": row["part"],
        "component": names[row["component"]],
        "token": row["token"],
        "steps": row["steps"],
        **({"noise": f"{row['noise_sigmas']:g}"} if "noise_sigmas" in row else {}),
        "effect": f"{row['mean_ie']:+.3f}{error}",
    }


def _print_leaders(run: "TraceRun") -> None:
    names = short_names([component.name for component in run.components])
    if leaders := _leaders(run):
        say(f"largest mean effect so far, by {_measure(run)}:")
        print_rows([_leader(leader, names) for leader in leaders], Format.TABLE)


def _leaders(run: "TraceRun") -> list[dict[str, object]]:
    """Return the state of the largest effect so far, of each attribute, part and noise."""
    from jobs.query.rank import Choice, leading, without_one_noise
    from jobs.query.select import opened_views

    with opened_views(run) as views:
        found = leading(views, Choice(measure=_measure(run)))
    return without_one_noise(run, found).to_pylist()


def _measure(run: "TraceRun") -> str:
    return "target" if "target" in run.plan.measures else run.plan.measures[0]


def logs(
    run: RunArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the log until the attempt ends.")
    ] = False,
    address: AddressOption = None,
) -> None:
    """Print the log of a run's last attempt."""
    from jobs.tracing.watch import log_lines

    for line in log_lines(shared(run_location(run)), address=address, follow=follow):
        say(line)


def stop(run: RunArgument, address: AddressOption = None) -> None:
    """Stop the process or job that works on a run; committed scores stay."""
    from jobs.tracing.watch import stop_driver

    say(stop_driver(shared(run_location(run)), address=address), err=True)


def list_runs(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            help="Folder that holds runs.",
            show_default="runs/, in DQF_HOME if set",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="List the jobs of the cluster at this address, http://HEAD:8265, instead."
        ),
    ] = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """List runs with their states, or a cluster's jobs."""
    from jobs.tracing.watch import runs_in

    place = folder or runs_folder()
    if address:
        from jobs.cluster.submission import jobs

        rows = [asdict(job) for job in jobs(address)]
    else:
        rows = [asdict(status) for status in runs_in(place)]
    if rows:
        print_rows(rows, output_format)
    else:
        say(f"no {'jobs at ' + address if address else f'runs in {place}'}", err=True)
