"""Naming an edit in commands: by its name under `edits/`, or its folder."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options.completion import edits
from cli.options.home import edits_folder
from engine.files import is_folder, similar_name
from jobs.editing.manifest import MANIFEST, check_manifest
from schemas.errors import ConceptError


def edit_folder(edit: str) -> Path:
    """Return the folder of an edit given by name, or by a path."""
    is_path = "/" in edit or not edit.strip() or is_folder(Path(edit))
    return Path(edit) if is_path else edits_folder() / edit


def check_is_edit(folder: Path) -> None:
    """Raise ConceptError if a folder has no edit, before torch is imported, which is slow."""
    if not is_folder(folder):
        similar = similar_name(folder, holding=MANIFEST)
        meant = f", did you mean {similar}" if similar else ""
        raise ConceptError(
            f"no edit at {folder}{meant}: give an edit's name under edits/, or its folder"
        )
    check_manifest(folder)


EditArgument = Annotated[
    Path,
    typer.Argument(
        metavar="EDIT",
        parser=edit_folder,
        help="An edit's name under edits/, or its folder; DQF_HOME may hold edits/.",
        autocompletion=edits,
        show_default=False,
    ),
]
