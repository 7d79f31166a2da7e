"""Adding concepts to an edit and taking some back: solved again from the unedited weights.

So an edit does not depend on the order of its concepts, and a removed concept leaves no trace: the
weights are those of an edit that never had it.
"""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.files import refuse_inside, refuse_occupied
from engine.model.opening import open_tokenizers
from jobs.editing.manifest import read_manifest
from jobs.editing.plan import EditPlan
from jobs.editing.together import check_together
from jobs.editing.whole import check_model_of
from jobs.input.concepts import Numbered, read_numbered, refuse_lines
from jobs.input.rows import Problem
from schemas.concept import Concept, plain_text, same_text
from schemas.errors import ConceptError
from schemas.manifest import EditManifest


def with_added(folder: Path, concepts: Path, *, out: Path, images: int) -> EditPlan:
    """Return the plan of an edit that has the concepts of a file besides its own.

    ConceptError: one is in the edit already, or conflicts with one that is.
    """
    manifest = read_manifest(folder)
    added = read_numbered(concepts)
    refuse_lines(concepts, _conflicts(folder, manifest.concepts, added))
    together = (*manifest.concepts, *(concept for _, concept in added))
    return _plan(manifest, together, out=out, images=images)


def _conflicts(
    folder: Path, own: Sequence[Concept], added: Sequence[Numbered]
) -> Iterator[Problem]:
    edited = {plain_text(concept.concept) for concept in own}
    replacements = {plain_text(concept.replacement_text) for concept in own}
    for line, concept in added:
        if plain_text(concept.concept) in edited:
            yield line, f"concept {concept.concept!r} is in {folder} already: remove it there first"
        elif plain_text(concept.concept) in replacements:
            yield line, f"concept {concept.concept!r} is the replacement of another in {folder}"
        elif plain_text(concept.replacement_text) in edited:
            yield (
                line,
                f"replacement {concept.replacement_text!r} is edited in {folder}: choose another",
            )


def with_removed(folder: Path, names: Sequence[str], *, out: Path, images: int) -> EditPlan:
    """Return the plan of an edit without the concepts of those names.

    ConceptError: the edit has no such concept, or would have none left.
    """
    manifest = read_manifest(folder)
    for name in names:
        if not any(same_text(name, concept.concept) for concept in manifest.concepts):
            raise ConceptError(
                f"{folder} has no concept {name!r}: `dqf edit list {shlex.quote(str(folder))}` "
                "shows them"
            )
    left = tuple(
        c for c in manifest.concepts if not any(same_text(c.concept, name) for name in names)
    )
    if not left:
        raise ConceptError(
            f"no concept of {folder} would be left: use {manifest.model} as it is, without an edit"
        )
    return _plan(manifest, left, out=out, images=images)


def _plan(
    manifest: EditManifest, concepts: tuple[Concept, ...], *, out: Path, images: int
) -> EditPlan:
    refuse_occupied(out)
    refuse_inside(out, error=ConceptError)
    settings = manifest.settings
    check_model_of(manifest)
    check_together(
        concepts,
        tokenizers=list(open_tokenizers(manifest.model).values()),
        forms=settings.forms and settings.objective == "residual",
        kept=settings.kept_concepts,
    )
    return EditPlan(
        concepts=concepts,
        model=manifest.model,
        located=manifest.located,
        out=out,
        settings=settings,
        numerics=manifest.numerics,
        scorer=manifest.scorer,
        images=images,
    )
