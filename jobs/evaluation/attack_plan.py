"""The plan of an attack on an edit, checked before weights are loaded."""

from dataclasses import dataclass, replace
from pathlib import Path

from engine.editing.delta_file import delta_hash
from engine.editing.prompts import plain_phrase
from engine.evaluation.inversion import check_attackable
from engine.evaluation.recognition import choice_texts
from engine.evaluation.wordings import choices, read_words
from engine.model import registry
from engine.model.defaults import default_sampling
from engine.model.hub import source_folder
from engine.model.opening import open_skeleton, open_tokenizers
from engine.model.scorer import check_scorer
from engine.model.tokens import find_subjects
from engine.model.vocabulary import Phrasebook, read_phrasebook
from jobs.editing.whole import check_model_of, read_edit
from jobs.input.concepts import listed
from schemas.attack import Attack, AttackPlan, InversionBudget, SearchBudget
from schemas.caption import Caption
from schemas.concept import Concept, same_text
from schemas.errors import ConceptError, PlanError
from schemas.numerics import Numerics
from schemas.printable import shown

OPENING = "a photo of"
"""The opening of every prompt of an attack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackRequest:
    """A user's request for an attack."""

    edit: Path
    """The edit's folder."""
    concepts: tuple[str, ...] = ()
    """The edit's concepts that are attacked; all by default."""
    attacks: tuple[Attack, ...] = (Attack.EMBEDDING, Attack.PROMPT)
    seeds: int = 32
    """Number of images of every prompt."""
    steps: int | None = None
    """Steps of either search; by default those of its budget."""
    scorer: str | None = None
    """The scorer's name or path; the model's own by default."""


def plan_attack(request: AttackRequest) -> AttackPlan:
    """Return the plan of a request; no weights are loaded and nothing is written.

    ConceptError: the folder is not an edit, it has no such concept, a concept cannot be judged or
    does not fit a tokenizer, or the text encoders are not CLIP's. ModelUnavailable: the model or
    the scorer is missing.
    """
    manifest = read_edit(request.edit)
    check_model_of(manifest)
    edit = delta_hash(request.edit)
    edited, model = manifest.concepts, manifest.model
    attacked = _named(edited, request.concepts, request.edit)
    check_attackable(open_skeleton(model))
    scorer = request.scorer or registry.default_scorer(model)
    check_scorer(scorer)
    folder = source_folder(model)
    book, names = read_phrasebook(folder), choices(edited, read_words(folder, edited))
    own = default_sampling(model)
    changed = {} if request.steps is None else {"steps": request.steps}
    for tokenizer in open_tokenizers(model).values():
        _check_captions(tokenizer, attacked, book)
    for concept in attacked:
        choice_texts(concept, names[concept.kind], book=book)
    return AttackPlan(
        edit=edit,
        model=model,
        scorer=scorer,
        names=names,
        attacked=attacked,
        attacks=request.attacks,
        seeds=request.seeds,
        numerics=Numerics(steps=own.steps, guidance=own.guidance),
        inversion=replace(InversionBudget(), **changed),
        search=replace(SearchBudget(), **changed),
    )


def _named(
    edited: tuple[Concept, ...], names: tuple[str, ...], folder: Path
) -> tuple[Concept, ...]:
    for name in names:
        if not any(same_text(name, concept.concept) for concept in edited):
            raise ConceptError(
                f"edit {folder} has no concept {shown(name)}: it has {listed(edited)}"
            )
    if not names:
        return edited
    return tuple(c for c in edited if any(same_text(name, c.concept) for name in names))


def _check_captions(tokenizer: object, attacked: tuple[Concept, ...], book: Phrasebook) -> None:
    try:
        find_subjects(tokenizer, [caption_of(concept, book) for concept in attacked])
    except PlanError as error:
        raise ConceptError(f"the concept cannot be attacked: {error}") from error


def caption_of(concept: Concept, book: Phrasebook) -> Caption:
    """Return the plain prompt of a concept."""
    phrase = plain_phrase(concept.concept, kind=concept.kind, book=book)
    return Caption(
        caption=f"{OPENING} {phrase}", subject=concept.concept, attribute=concept.kind.value
    )
