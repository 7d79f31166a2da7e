"""The argument that names a run."""

from typing import Annotated

import typer

from cli.options.completion import runs

RunArgument = Annotated[
    str,
    typer.Argument(
        help="A run's name under runs/, its folder, or its s3:// or gs:// URL; DQF_HOME may hold "
        "runs/.",
        autocompletion=runs,
    ),
]
