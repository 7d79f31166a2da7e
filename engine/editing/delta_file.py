"""The file of an edit's weights and its hash (no torch)."""

import hashlib
from pathlib import Path

from engine.files import is_file
from schemas.errors import ConceptError

DELTA = "edit.safetensors"
"""The delta's name in an edit's folder."""


def delta_path(edit: Path) -> Path:
    """Return the path of an edit's delta; ConceptError if the folder has none, or a pipe or a link
    to nothing in its place."""
    path = edit / DELTA
    if not is_file(path):
        raise ConceptError(f"{edit} is not an edit folder: it has no file {DELTA}")
    return path


def delta_hash(edit: Path) -> str:
    """Return the content hash of an edit's delta; ConceptError as `delta_path`."""
    return hashlib.blake2b(delta_path(edit).read_bytes(), digest_size=16).hexdigest()


def check_evaluates(edit: Path, evaluated: object, where: Path | str) -> None:
    """Raise ConceptError if an evaluation is of another delta than an edit's, where it has one."""
    if is_file(edit / DELTA) and evaluated != delta_hash(edit):
        raise ConceptError(
            f"{where} has the results of another edit than {edit}: evaluate this one under another "
            "--out"
        )
