"""The `dqf` command: the list of all commands, and the handling of errors."""

import inspect
import re
import sys
from typing import Annotated

import typer
from typer.core import TyperCommand

from cli import (
    attack,
    doctor,
    evaluate,
    export,
    generate,
    models,
    plot,
    query,
    rank,
    report,
    sweep,
    trace,
    trace_sets,
    watch,
)
from cli import edit as edits
from cli import edit_batch as edit
from cli.options.meant import ListingCommand, MeantGroup, OnceCommand
from cli.options.sampling import as_typed, own_name
from cli.printing.lines import say, say_lines
from cli.printing.streams import (
    check_folder,
    check_streams,
    check_width,
    flush_stdout,
    tidy_end,
)
from schemas.errors import DqfError, deepest, first_line, unimportable
from schemas.printable import message

FINDING, EDITING, MODELS = "Find where a concept is kept", "Edit it out", "Models"
TERMS = "What the terms mean: docs/glossary.md"

app = typer.Typer(
    name="dqf",
    cls=MeantGroup,
    context_settings={"token_normalize_func": own_name},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find where a text-to-image diffusion model keeps a concept, and edit it out in bulk.",
    epilog="Example: dqf trace submit && dqf rank demo",
)
trace.app.command("sets", epilog="Example: dqf trace sets demo --attribute object")(trace_sets.sets)
trace.app.command(epilog="Example: dqf trace status demo --format json")(watch.status)
trace.app.command(epilog="Example: dqf trace logs demo --follow")(watch.logs)
trace.app.command(epilog="Example: dqf trace stop demo")(watch.stop)
trace.app.command("list", epilog="Example: dqf trace list --address http://HEAD:8265")(
    watch.list_runs
)
app.add_typer(trace.app, name="trace", rich_help_panel=FINDING, epilog=TERMS)
app.command(
    "rank",
    rich_help_panel=FINDING,
    epilog=f"Example: dqf rank demo --attribute style --part denoiser\n\n{TERMS}",
)(rank.rank)
app.command(
    "query", rich_help_panel=FINDING, epilog='Example: dqf query demo "SELECT * FROM ranking"'
)(query.query)
app.command("export", rich_help_panel=FINDING, epilog="Example: dqf export demo demo.duckdb")(
    export.export
)
app.command("report", rich_help_panel=FINDING, epilog="Example: dqf report demo --edit edits/demo")(
    report.report
)
app.command(
    "plot",
    rich_help_panel=FINDING,
    epilog="Example: dqf plot demo --figure ranking --attribute style --out style.pdf",
)(plot.plot)
app.command("doctor", rich_help_panel=FINDING, epilog="Example: dqf doctor demo --repair")(
    doctor.doctor
)
app.command(
    "models",
    cls=ListingCommand,
    rich_help_panel=MODELS,
    epilog="Example: dqf models --format json",
)(models.models)
app.command(
    "components", rich_help_panel=MODELS, epilog="Example: dqf components emoji-sd --format csv"
)(models.components)
app.command(
    "edit-batch",
    rich_help_panel=EDITING,
    epilog="Example: dqf edit-batch concepts.csv --from-run demo --out edits/demo",
)(edit.edit_batch)
edits.app.command(
    "create", epilog="Example: dqf edit create concepts.csv --from-run demo --out edits/demo"
)(edit.edit_batch)
edits.app.command("evaluate", epilog="Example: dqf edit evaluate edits/demo")(evaluate.evaluate)
edits.app.command("results", epilog="Example: dqf edit results edits/demo")(evaluate.results)
edits.app.command(
    "sweep",
    epilog="Example: dqf edit sweep concepts.csv --model emoji-sd "
    "--layer text_encoder.layers.0.self_attn --preserve 1,3 --out sweeps/demo",
)(sweep.sweep)
edits.app.command("attack", epilog="Example: dqf edit attack edits/demo --concept cat")(
    attack.attack
)
app.add_typer(edits.app, name="edit", rich_help_panel=EDITING, epilog=TERMS)
app.command(
    "generate",
    rich_help_panel=EDITING,
    epilog='Example: dqf generate --edit edits/demo "a photo of a cat"',
)(generate.generate)


def _prepare(commands: typer.Typer) -> None:
    """Join the lines of the docstrings of commands, which help folds to the terminal's width, and
    let each option be given once."""
    for command in commands.registered_commands:
        text = inspect.getdoc(command.callback) or ""
        command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", text)
        if command.cls is TyperCommand:
            command.cls = OnceCommand


for commands in (app, trace.app, edits.app):
    _prepare(commands)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        say(f"dqf {version('dqf')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version."),
    ] = False,
) -> None:
    """Take the options before a command."""


def main() -> None:
    """Run `dqf`; a DqfError becomes its message on stderr and its exit code."""
    try:
        check_streams()
        check_folder()
        check_width()
        with tidy_end():
            _run()
    except DqfError as error:
        said = as_typed(f"dqf: {error}", sys.argv)
        say_lines(message(said, has_lines=error.has_lines), err=True)
        sys.exit(error.exit_code)


def _run() -> None:
    try:
        app()
    except SystemExit as end:
        # Only a command that went well can still fail because stdout cannot be written.
        if not end.code:
            flush_stdout()
        raise
    except UnicodeEncodeError as error:
        letter = ascii(error.object[error.start])
        raise DqfError(
            f"stdout's encoding, {error.encoding}, lacks {letter}: set PYTHONIOENCODING=utf-8"
        ) from error
    except Exception as error:
        if (package := unimportable(error)) is None:
            raise
        raise DqfError(
            f"{package} cannot be imported ({first_line(deepest(error))}): correct the "
            "environment variables that it reads, as PYTHONOPTIMIZE, or install it again"
        ) from error
