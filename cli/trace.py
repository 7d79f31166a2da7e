"""`dqf trace`: submit a plan and see how far it is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Format, FormatOption, print_rows
from cli.runs import RunArgument, run_path
from schemas.component import Part

if TYPE_CHECKING:
    from jobs.trace import Progress

app = typer.Typer(no_args_is_help=True, help="Trace where a model keeps an attribute.")
NUMERICS = ("steps", "guidance", "noise_sigmas", "noise_at", "cfg_patch", "dtype")
"""Options that go to the plan's `numerics`."""


@app.command(epilog="Example: dqf trace submit --captions captions.csv --model sd-1.4 --run art")
def submit(
    model: Annotated[
        str | None, typer.Option(help="Built-in name, diffusers folder or hub id.")
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(help="CSV, JSONL or Parquet: caption, subject, attribute[, target]."),
    ] = None,
    probe: Annotated[str | None, typer.Option(help="A whole built-in probe set.")] = None,
    plan: Annotated[
        Path | None, typer.Option(help="A YAML plan; other plan options override its fields.")
    ] = None,
    part: Annotated[str | None, typer.Option(help="unet, text-encoder or both.")] = None,
    run: Annotated[str, typer.Option(help="The run's name under runs/, or its folder.")] = "demo",
    seed: Annotated[list[int] | None, typer.Option(help="Seed of the latent; repeatable.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    noise: Annotated[
        float | None, typer.Option(help="Noise on the subject, in sigmas of the embeddings.")
    ] = None,
    noise_at: Annotated[
        str | None, typer.Option(help="UNet trace: noise the text encoder's input or output.")
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Noise draws a caption and seed.")] = None,
    cfg_patch: Annotated[str | None, typer.Option(help="Restore half cond, or both.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    component: Annotated[
        list[str] | None, typer.Option(help="Trace only this component; repeatable.")
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(help="Scorer: an open_clip folder or ARCHITECTURE:PRETRAINED.")
    ] = None,
    rows: Annotated[int, typer.Option(min=2, help="Rows of a batch; changes no score.")] = 24,
    actors: Annotated[int | None, typer.Option(min=1, help="Ray actors.")] = None,
    address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="Ray cluster; a local Ray if none.")
    ] = None,
) -> None:
    """Trace captions on Ray, or resume a run that was cut short.

    With no options: a small balanced subset of the built-in probe set on emoji-sd, as run `demo`.
    """
    options: dict[str, Any] = {
        "model": model,
        "scorer": scorer,
        "parts": None if part is None else _parts(part),
        "seeds": seed or None,
        "noise_draws": draws,
        "components": component or None,
        "steps": steps,
        "guidance": guidance,
        "noise_sigmas": noise,
        "noise_at": noise_at,
        "cfg_patch": cfg_patch,
        "dtype": dtype,
    }
    fields = _fields(options, captions=captions, probe=probe, plan=plan)
    _submit(fields, run_path(run), rows=rows, actors=actors, address=address)


def _parts(part: str) -> list[str]:
    from schemas.errors import PlanError

    if part == "both":
        return [member.value for member in Part]
    if part not in list(Part):
        raise PlanError(f"--part is unet, text-encoder or both, not {part!r}")
    return [part]


def _fields(
    options: dict[str, Any], *, captions: Path | None, probe: str | None, plan: Path | None
) -> dict[str, Any]:
    """Return the plan's fields: the plan file's, overridden by options that were given."""
    from jobs.plans import pick, read_captions, read_plan
    from jobs.probes import DEMO_CAPTIONS_PER_ATTRIBUTE, probe_set
    from schemas.errors import PlanError

    fields = read_plan(plan) if plan else {}
    given = {name: value for name, value in options.items() if value is not None}
    numerics = {name: given.pop(name) for name in NUMERICS if name in given}
    fields |= given
    fields["numerics"] = {**(fields.get("numerics") or {}), **numerics}  # pyright: ignore
    if captions and probe:
        raise PlanError("give --captions or --probe, not both")
    if captions:
        fields["captions"] = read_captions(captions)
    elif probe:
        fields["captions"] = probe_set(probe)
    elif "captions" not in fields:
        if fields.get("model", "emoji-sd") != "emoji-sd":
            raise PlanError("give --captions FILE or --probe sd to say what to trace on this model")
        fields["captions"] = pick(probe_set("emoji-sd"), each=DEMO_CAPTIONS_PER_ATTRIBUTE)
    return fields


def _submit(
    fields: dict[str, Any], path: Path, *, rows: int, actors: int | None, address: str | None
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
