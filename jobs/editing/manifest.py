"""The manifest of an edit's folder as text, and reading it, for which no model is opened."""

import json
from pathlib import Path

from pydantic import ValidationError

from engine.files import is_file, read_json_file
from schemas.documents import first_message, is_mapping
from schemas.errors import ConceptError
from schemas.manifest import MANIFEST_VERSION, EditManifest

MANIFEST = "edit.json"
BEFORE_AFTER = "before_after.png"
"""The picture of an edit's folder."""


def manifest_text(manifest: EditManifest) -> str:
    """Return the content of a manifest's file; ValueError: a number of it is not finite."""
    fields = manifest.model_dump(mode="json")
    return json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def check_manifest(folder: Path) -> Path:
    """Return the path of an edit's manifest; ConceptError if the folder has none."""
    path = folder / MANIFEST
    if not is_file(path):
        raise ConceptError(f"{folder} is not an edit folder: it has no {MANIFEST}")
    return path


def read_manifest(folder: Path) -> EditManifest:
    """Return the manifest of an edit's folder.

    ConceptError: it is not an edit's folder, one of another version, or its manifest is damaged.
    """
    path = check_manifest(folder)
    fields = read_json_file(path, error=ConceptError)
    version = fields.get("version") if is_mapping(fields) else None
    if not isinstance(version, int):
        raise ConceptError(f"{path} is not a manifest of an edit: it has no version")
    if version != MANIFEST_VERSION:
        todo = "update dqf" if version > MANIFEST_VERSION else "make the edit again"
        raise ConceptError(
            f"{path} has version {version}, this dqf reads {MANIFEST_VERSION}: {todo}"
        )
    try:
        return EditManifest.model_validate(fields)
    except ValidationError as error:
        raise ConceptError(f"{path} is damaged: {first_message(error)}") from error
