"""Whether concepts can be edited together: no text would become two things."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.editing.forms import ARTICLES, facing_forms
from engine.editing.names import KnownNames
from jobs.input.concepts import check_concepts
from schemas.concept import PLACE, Concept, ConceptKind, plain_text
from schemas.errors import ConceptError

WITH_ARTICLE = (ConceptKind.OBJECT, ConceptKind.COLOR)
"""Kinds whose prompts put an article before the name."""


def check_together(
    concepts: Sequence[Concept],
    *,
    tokenizers: Sequence[Any],
    forms: bool,
    kept: Sequence[Concept] = (),
) -> None:
    """Raise ConceptError if concepts cannot be edited together, or one of them is kept too.

    `forms`: whether their other forms are edited with them.
    """
    check_concepts(concepts)
    _check_articles(concepts)
    _check_templates(concepts)
    _check_distinct(concepts, tokenizers)
    if forms:
        _check_forms(concepts)
    edited = edited_texts(concepts, forms=forms)
    for concept in kept:
        if said := edited.get(plain_text(concept.concept)):
            raise ConceptError(f"{concept.concept!r} is kept, and {said}: leave it out of one")


def edited_texts(concepts: Sequence[Concept], *, forms: bool) -> Mapping[str, str]:
    """Return the plain texts that an edit changes, each with a clause that says why."""
    of_forms = {
        text: f"is a form of {concept.concept!r}, which is edited"
        for concept in concepts
        for text, _ in (_forms(concept) if forms else ())
    }
    return of_forms | {plain_text(concept.concept): "is edited" for concept in concepts}


def _check_articles(concepts: Sequence[Concept]) -> None:
    """Raise ConceptError for a name with an article, before which prompts put another."""
    for concept in concepts:
        for name in (concept.concept, concept.replacement):
            first, _, rest = name.partition(" ")
            if rest and first.lower() in ARTICLES and concept.kind in WITH_ARTICLE:
                raise ConceptError(
                    f"{name!r} starts with an article, and prompts of an {concept.kind} add one: "
                    f"write {rest.strip()!r}"
                )


def _check_templates(concepts: Sequence[Concept]) -> None:
    """Raise ConceptError for a template that says its concept, so that the replacement's would."""
    for concept in concepts:
        names = KnownNames([concept.concept])
        for template in concept.prompts:
            if names.said(template):
                raise ConceptError(
                    f"template {template!r} says {concept.concept!r} besides {PLACE}: leave it out "
                    "there"
                )


def _check_distinct(concepts: Sequence[Concept], tokenizers: Sequence[Any]) -> None:
    """Raise ConceptError if every tokenizer gives two names the same ids."""
    first: dict[tuple[tuple[int, ...], ...], str] = {}
    for concept in concepts:
        ids = tuple(tuple(t(concept.concept, verbose=False).input_ids) for t in tokenizers)
        name = first.setdefault(ids, concept.concept)
        if name != concept.concept:
            raise ConceptError(
                f"{name!r} and {concept.concept!r} are the same tokens to the model: leave one out"
            )


def _check_forms(concepts: Sequence[Concept]) -> None:
    """Raise ConceptError for a form of a concept that another row edits otherwise, or makes."""
    becomes = {plain_text(c.concept): plain_text(c.replacement_text) for c in concepts}
    made = {plain_text(c.replacement_text): c for c in concepts}
    first: dict[str, tuple[Concept, str]] = {}
    for concept in concepts:
        for text, faced in _forms(concept):
            one, other = first.setdefault(text, (concept, faced))
            wanted = {faced, plain_text(concept.replacement_text)}
            if becomes.get(text, faced) not in wanted or other != faced:
                twice = f"that of {one.concept!r} too" if one != concept else "a concept too"
                raise ConceptError(
                    f"{text!r} is a form of {concept.concept!r}, which becomes {faced!r}, and "
                    f"{twice}, which becomes something else: leave one out, or list other forms"
                )
            if text in made:
                raise ConceptError(
                    f"{made[text].concept!r} becomes {made[text].replacement_text!r}, which is a "
                    f"form of {concept.concept!r} and edited: choose another replacement"
                )


def _forms(concept: Concept) -> Iterator[tuple[str, str]]:
    """Yield the plain texts of a concept's other forms, each with that of what it becomes."""
    if concept.prompts and concept.forms is None:  # templates of its own are all that it has
        return
    for form, faced in facing_forms(concept, concept.replacement_text):
        text = plain_text(form.text)
        if text != plain_text(concept.concept):
            yield text, plain_text(faced.text)
