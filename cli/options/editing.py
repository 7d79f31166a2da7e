"""Options of the commands that make an edit."""

from pathlib import Path
from typing import Annotated

import typer

OutOption = Annotated[Path, typer.Option(help="Folder for the new edit; new or empty.")]
ImagesOption = Annotated[
    int,
    typer.Option(
        min=0, max=1000, help="Images per prompt before and after; 0 draws and scores none."
    ),
]
