"""Reading the manifest of an edit's folder, for which no model is opened."""

from pathlib import Path

from pydantic import ValidationError

from engine.files import is_file, read_json_file
from schemas.documents import first_message
from schemas.errors import ConceptError
from schemas.manifest import MANIFEST_VERSION, EditManifest

MANIFEST = "edit.json"
BEFORE_AFTER = "before_after.png"
"""The picture of an edit's folder."""


def read_manifest(folder: Path) -> EditManifest:
    """Return the manifest of an edit's folder.

    ConceptError: it is no edit folder, one of a later version, or its manifest is damaged.
    """
    path = folder / MANIFEST
    if not is_file(path):
        raise ConceptError(f"{folder} is no edit folder: it has no {MANIFEST}")
    fields = read_json_file(path, error=ConceptError)
    found = fields.get("version") if isinstance(fields, dict) else None
    if not isinstance(found, int) or not isinstance(fields, dict):
        raise ConceptError(f"{path} is no manifest of an edit: it has no version")
    if found > MANIFEST_VERSION:
        raise ConceptError(
            f"{path} has version {found}, this dqf reads up to {MANIFEST_VERSION}: update dqf"
        )
    try:
        return EditManifest.model_validate(fields)
    except ValidationError as error:
        raise ConceptError(f"{path} is damaged: {first_message(error)}") from error
