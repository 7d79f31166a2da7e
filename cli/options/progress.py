"""Options for how much a command reports on stderr."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

from cli.options.panels import RUNNING, option
from cli.options.shared import with_options
from cli.printing.lines import Detail, in_detail


def with_progress_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --quiet, --verbose and --no-progress, which hold while it runs."""

    def run(*, detail: Detail, **given: Any) -> None:
        with in_detail(detail):
            command(**given)

    run.__doc__, run.__name__ = command.__doc__, command.__name__
    run.__signature__ = _signature(command)  # pyright: ignore
    return with_options(_declared, into="detail", made_by=lambda options: Detail(**options))(run)


def _signature(command: Callable[..., None]) -> inspect.Signature:
    own = inspect.signature(command)
    detail = inspect.Parameter("detail", inspect.Parameter.KEYWORD_ONLY, annotation=Detail)
    return own.replace(parameters=[*own.parameters.values(), detail])


def _declared(
    *,
    quiet: Annotated[
        bool, option("Report errors and failed units only.", "--quiet", "-q", panel=RUNNING)
    ] = False,
    verbose: Annotated[
        bool, option("Print the log's lines too.", "--verbose", "-v", panel=RUNNING)
    ] = False,
    progress: Annotated[
        bool, option("Show progress.", "--progress/--no-progress", panel=RUNNING)
    ] = True,
) -> None:
    """Declares the options; never called."""
