"""An edit's folder as a whole: its manifest is that of its weights."""

from collections.abc import Iterable
from pathlib import Path

from engine.editing.delta import Delta, open_delta, weight_hash
from engine.model.opening import check_model
from engine.model.registry import model_hash
from jobs.editing.manifest import MANIFEST, read_manifest
from schemas.concept import Concept
from schemas.content_id import content_id
from schemas.errors import ConceptError
from schemas.manifest import EditManifest


def read_edit(folder: Path) -> EditManifest:
    """Return an edit's manifest; ConceptError as `open_edit`."""
    return open_edit(folder)[0]


def open_edit(folder: Path) -> tuple[EditManifest, Delta]:
    """Return an edit's manifest and weights.

    ConceptError: one of them is missing or damaged, or they are of two edits.
    """
    delta, manifest = open_delta(folder), read_manifest(folder)
    changed = [matrix for matrix in manifest.matrices if matrix.hash_after != matrix.hash_before]
    described = {matrix.name: matrix.hash_after for matrix in changed}
    is_of_weights = described == {n: weight_hash(weight) for n, weight in delta.weights.items()}
    if not is_of_weights or delta.concepts not in (None, concepts_hash(manifest.concepts)):
        raise ConceptError(
            f"{folder} has weights that its {MANIFEST} does not describe, as if they were of two "
            "edits: make the edit again"
        )
    return manifest, delta


def check_model_of(manifest: EditManifest) -> None:
    """Raise ModelUnavailable if the model of an edit cannot be opened, ConceptError if it has
    changed since."""
    check_model(manifest.model)
    if model_hash(manifest.model) != manifest.model_hash:
        raise ConceptError(
            f"{manifest.model} has changed since the edit was made of it: make the edit again"
        )


def concepts_hash(concepts: Iterable[Concept]) -> str:
    """Return a hash of an edit's concepts in any order, as the metadata of its weights has it."""
    return content_id(sorted(concept.model_dump_json() for concept in concepts))
