"""The options that say how much a command tells of its work on stderr."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from cli.options.shared import with_options
from cli.printing.lines import Told, telling


def with_progress_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --quiet, --verbose and --no-progress, which hold while it runs."""

    def run(*, told: Told, **given: Any) -> None:
        with telling(told):
            command(**given)

    run.__doc__, run.__name__ = command.__doc__, command.__name__
    run.__signature__ = _signature(command)  # pyright: ignore
    return with_options(_declared, into="told", made_by=lambda options: Told(**options))(run)


def _signature(command: Callable[..., None]) -> inspect.Signature:
    own = inspect.signature(command)
    told = inspect.Parameter("told", inspect.Parameter.KEYWORD_ONLY, annotation=Told)
    return own.replace(parameters=[*own.parameters.values(), told])


def _declared(
    *,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say errors and failed units alone.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what is in the log too.")
    ] = False,
    progress: Annotated[
        bool, typer.Option("--progress/--no-progress", help="Show how far the work is.")
    ] = True,
) -> None:
    """Declares the options; never called."""
