"""Options of the commands that evaluate an edit."""

from typing import Annotated

import typer

from cli.options.panels import MODEL, option
from cli.options.sampling import OWN

ImagesOption = Annotated[
    int, typer.Option(min=1, max=100_000, help="Images of each prompt, before and after.")
]
ScorerOption = Annotated[str | None, option("Scorer of the images.", panel=MODEL, default=OWN)]
