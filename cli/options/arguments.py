"""The argument that names a run."""

from typing import Annotated

import typer

from cli.options.completion import runs

HELP = "A run's name under runs/, its folder, or its s3:// or gs:// URL; DQF_HOME may hold runs/."

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help=HELP, autocompletion=runs)]
OptionalRunArgument = Annotated[
    str | None, typer.Argument(metavar="RUN", help=HELP, autocompletion=runs, show_default=False)
]
