"""Options of the commands that evaluate an edit."""

from typing import Annotated

import typer

SeedsOption = Annotated[
    int, typer.Option(min=1, max=100_000, help="Images of each prompt, before and after.")
]
StepsOption = Annotated[
    int | None, typer.Option(min=1, help="Denoising steps; the model's own by default.")
]
ScorerOption = Annotated[
    str | None, typer.Option(help="Scorer of the images; the model's own by default.")
]
