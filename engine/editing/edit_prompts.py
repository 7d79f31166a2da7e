"""All prompts of an edit: those that are to change, and those that are to stay."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.editing.pairs import PromptPair, prompt_pairs
from engine.editing.prompts import (
    further_captions,
    general_captions,
    known_names,
    prompts,
    split_by_mention,
)
from engine.model.vocabulary import Phrasebook
from schemas.caption import Caption
from schemas.concept import Concept, plain_text
from schemas.edit_settings import EditSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class EditPrompts:
    """The prompts of an edit: those that are changed and those that are kept."""

    pairs: list[PromptPair]
    """Prompts of the concepts, with those of their replacements."""
    general: list[Caption]
    """General captions that say no concept: they stay."""
    mentioning: list[Caption]
    """General captions that say one."""
    further: list[Caption]
    """Captions of the names that are kept besides; they say no concept and stay."""
    exact: list[Caption]
    """Captions that stay bit by bit, up to rounding."""


def edit_prompts(
    concepts: Sequence[Concept], *, book: Phrasebook, settings: EditSettings
) -> EditPrompts:
    """Return the prompts that an edit of concepts with these settings is fitted on.

    They come in an order that does not depend on that of the concepts, nor does which prompts they
    are, so that concepts may be added in any order.
    """
    concepts = sorted(concepts, key=lambda c: (plain_text(c.concept), c.kind))
    known = known_names(concepts, book=book, kept=settings.kept_concepts)
    general, mentioning = split_by_mention(general_captions(book=book), concepts, known=known)
    named = further_captions(concepts, book=book, kept=settings.keep)
    further, _ = split_by_mention(named, concepts, known=known)
    return EditPrompts(
        pairs=prompt_pairs(concepts, book=book, forms=settings.forms, kept=settings.kept_concepts),
        general=general,
        mentioning=mentioning,
        further=further,
        exact=[
            caption
            for name in settings.exactly
            for caption in prompts(name.concept, kind=name.kind, book=book, own=name.prompts)
        ],
    )
