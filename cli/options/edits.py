"""Naming an edit in commands: by its name under `edits/`, or its folder."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options.completion import edits
from cli.options.home import edits_folder
from engine.files import is_folder
from jobs.editing.manifest import check_manifest
from schemas.errors import ConceptError


def edit_folder(edit: str) -> Path:
    """Return the folder of an edit given by name, or by a path."""
    is_path = "/" in edit or not edit.strip() or is_folder(Path(edit))
    return Path(edit) if is_path else edits_folder() / edit


def existing_edit(edit: str) -> Path:
    """Return the folder of an edit; ConceptError, before torch is imported, if there is none."""
    folder = edit_folder(edit)
    if not is_folder(folder):
        raise ConceptError(f"no edit at {folder}: `dqf edit create` makes one")
    check_manifest(folder)
    return folder


EditArgument = Annotated[
    Path,
    typer.Argument(
        metavar="EDIT",
        parser=existing_edit,
        help="An edit's name under edits/, or its folder; DQF_HOME may hold edits/.",
        autocompletion=edits,
        show_default=False,
    ),
]
