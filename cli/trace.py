"""`dqf trace`: submit a plan and see how far it is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Format, FormatOption, print_rows
from cli.plan_options import with_plan_options
from cli.runs import RunArgument, run_path

if TYPE_CHECKING:
    from jobs.trace import Progress

app = typer.Typer(no_args_is_help=True, help="Trace where a model keeps an attribute.")


@app.command(epilog="Example: dqf trace submit --captions captions.csv --model sd-1.4 --run art")
@with_plan_options
def submit(
    fields: dict[str, Any],
    run: Annotated[str, typer.Option(help="The run's name under runs/, or its folder.")] = "demo",
    rows: Annotated[
        int | None,
        typer.Option(min=2, help="Rows of a batch, measured if none; changes no score."),
    ] = None,
    actors: Annotated[int | None, typer.Option(min=1, help="Ray actors.")] = None,
    address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="Ray cluster; a local Ray if none.")
    ] = None,
) -> None:
    """Trace captions on Ray, or resume a run that was cut short.

    With no options: a small balanced subset of the built-in probe set on emoji-sd, as run `demo`.
    """
    _submit(fields, run_path(run), rows=rows, actors=actors, address=address)


@app.command(epilog="Example: dqf trace plan --probe emoji-sd --window each")
@with_plan_options
def plan(
    fields: dict[str, Any],
    calibrate: Annotated[
        bool, typer.Option(help="Open the model and time its UNet on this machine's device.")
    ] = True,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Check a plan and print what it costs, without running it."""
    from dataclasses import asdict

    from jobs.cost import device_time, plan_cost
    from jobs.plans import check_plan, make_plan

    planned = check_plan(make_plan(fields))
    cost = plan_cost(planned)
    row: dict[str, object] = asdict(cost)
    if calibrate:
        row |= asdict(device_time(planned, cost))
    print_rows([row], output_format)


def _submit(
    fields: dict[str, Any], path: Path, *, rows: int | None, actors: int | None, address: str | None
) -> None:
    from jobs.cluster import Cluster, check_address
    from jobs.plans import check_plan, make_plan
    from jobs.trace import prepare_run, trace_run

    if address:
        check_address(address)
    run = prepare_run(path, check_plan(make_plan(fields)))
    typer.echo(f"run {path}: starting {address or 'a local Ray'}", err=True)
    try:
        with _progress_bar() as show:
            end = trace_run(
                run,
                cluster=Cluster(address=address, actors=actors),
                rows=rows,
                on_progress=show,
            )
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command resumes run {path}", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"run {path}: {end.done} of {end.total} units done, {end.failed} failed", err=True)
    if end.failed:
        typer.echo(f'see `dqf query {path} "SELECT * FROM failures"`', err=True)
        raise typer.Exit(1)


@contextmanager
def _progress_bar() -> "Iterator[Callable[[Progress], None]]":
    """Yield a callback that shows progress on stderr: a bar on a terminal, else a few lines."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _progress_lines()
        return
    columns = (TextColumn("tracing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("units")
        yield lambda at: bar.update(task, completed=at.done, total=at.total)


def _progress_lines(every_s: float = 10.0) -> "Callable[[Progress], None]":
    start_s = time.monotonic()
    start_done: int | None = None
    last_s = float("-inf")

    def show(at: "Progress") -> None:
        nonlocal start_done, last_s
        start_done = at.done if start_done is None else start_done
        now_s = time.monotonic()
        if now_s - last_s < every_s and at.done < at.total:
            return
        last_s = now_s
        rate = (at.done - start_done) / max(now_s - start_s, 1e-9)
        eta = f", {(at.total - at.done) / rate:.0f} s left" if rate > 0 else ""
        typer.echo(f"tracing: {at.done} of {at.total} units{eta}", err=True)

    return show


@app.command(epilog="Example: dqf trace status demo")
def status(run: RunArgument, output_format: FormatOption = Format.TABLE) -> None:
    """Show how far a run is, from its folder alone."""
    from jobs.store import open_run
    from jobs.trace import progress_of

    at = progress_of(open_run(run_path(run)))
    left = at.total - at.done
    row: dict[str, object] = {"run": run, "done": at.done, "failed": at.failed, "left": left}
    print_rows([row], output_format)
