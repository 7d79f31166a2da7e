"""Options of the images that an edit is evaluated by."""

from typing import Annotated

import typer

SeedsOption = Annotated[int, typer.Option(min=1, help="Images of a prompt on each side.")]
StepsOption = Annotated[
    int | None, typer.Option(min=1, help="Denoising steps; the model's own by default.")
]
ScorerOption = Annotated[
    str | None, typer.Option(help="Scorer of the images; the model's own by default.")
]
