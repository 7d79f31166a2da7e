"""Adding concepts to an edit and taking some back: solved anew from the unedited weights.

So an edit does not depend on the order in which its concepts came, and what is taken back leaves
no trace: the weights are those of an edit that never had it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from engine.editing.solve import EditSettings
from engine.files import refuse_occupied
from jobs.editing.edit import EditJob
from jobs.editing.manifest import MANIFEST, read_manifest
from jobs.editing.report import EditSite
from jobs.input.concepts import Numbered, read_numbered, refuse_lines
from jobs.input.rows import Problem
from schemas.concept import Concept, plain_text, same_text
from schemas.documents import parsed
from schemas.errors import ConceptError
from schemas.manifest import EditManifest
from schemas.numerics import Numerics

T = TypeVar("T")


def with_added(folder: Path, concepts: Path, *, out: Path, images: int) -> EditJob:
    """Return the job of an edit that has the concepts of a file besides its own.

    ConceptError: one is in the edit already, or conflicts with one that is.
    """
    manifest = read_manifest(folder)
    added = read_numbered(concepts)
    refuse_lines(concepts, _conflicts(folder, manifest.concepts, added))
    together = (*manifest.concepts, *(concept for _, concept in added))
    return _job(folder, manifest, together, out=out, images=images)


def _conflicts(
    folder: Path, own: Sequence[Concept], added: Sequence[Numbered]
) -> Iterator[Problem]:
    edited = {plain_text(concept.concept) for concept in own}
    targets = {plain_text(concept.target_text) for concept in own}
    for line, concept in added:
        if plain_text(concept.concept) in edited:
            yield line, f"concept {concept.concept!r} is in {folder} already: remove it there first"
        elif plain_text(concept.concept) in targets:
            yield line, f"concept {concept.concept!r} is the target of another in {folder}"
        elif plain_text(concept.target_text) in edited:
            yield line, f"target {concept.target_text!r} is edited in {folder}: choose another"


def with_removed(folder: Path, names: Sequence[str], *, out: Path, images: int) -> EditJob:
    """Return the job of an edit without the concepts of those names.

    ConceptError: the edit has no such concept, or would have none left.
    """
    manifest = read_manifest(folder)
    for name in names:
        if not any(same_text(name, concept.concept) for concept in manifest.concepts):
            raise ConceptError(f"{folder} has no concept {name!r}: `dqf edit list` shows them")
    left = tuple(
        c for c in manifest.concepts if not any(same_text(c.concept, name) for name in names)
    )
    if not left:
        raise ConceptError(
            f"no concept of {folder} would be left: use {manifest.model} as it is, without an edit"
        )
    return _job(folder, manifest, left, out=out, images=images)


def _job(
    folder: Path,
    manifest: EditManifest,
    concepts: tuple[Concept, ...],
    *,
    out: Path,
    images: int,
) -> EditJob:
    refuse_occupied(out)

    def field(name: str, kind: type[T]) -> T:
        where = f"{folder / MANIFEST} is damaged, field {name!r}"
        return parsed(kind, (manifest.model_extra or {}).get(name), where, error=ConceptError)

    return EditJob(
        concepts=concepts,
        model=manifest.model,
        located=field("located", EditSite),
        out=out,
        settings=settings_of(manifest, folder),
        numerics=field("numerics", Numerics),
        scorer=field("scorer", str),
        images=images,
    )


def settings_of(manifest: EditManifest, folder: Path) -> EditSettings:
    """Return the settings that an edit was solved with; ConceptError: one is missing or wrong."""
    where = f"{folder / MANIFEST} is damaged, its settings"
    for name in (setting.name for setting in fields(EditSettings)):
        if name not in manifest.settings:
            raise ConceptError(f"{where} lack {name!r}: make the edit again")
    return parsed(EditSettings, manifest.settings, where, error=ConceptError)
