"""Naming an edit in commands: by its name under `edits/`, or its folder."""

from pathlib import Path
from typing import Annotated

import typer

from engine.files import is_folder

EDITS = Path("edits")
"""The folder of edits, under the working directory."""


def edit_folder(edit: str) -> Path:
    """Return the folder of an edit given by name, or by a path."""
    is_path = "/" in edit or not edit.strip() or is_folder(Path(edit))
    return Path(edit) if is_path else EDITS / edit


EditArgument = Annotated[
    Path,
    typer.Argument(
        metavar="EDIT",
        parser=edit_folder,
        help="An edit's name under edits/, or its folder.",
        show_default=False,
    ),
]
