"""Prompts of a user's own as prompts of an evaluation.

A prompt that says its concept is judged as dqf's own are: by itself, with every name of the kind
in the concept's place. One that means the concept without its name is judged by the plainest
wording of the kind, and counts by itself: an edit of a name cannot reach what never says it.
"""

from engine.editing.names import KnownNames, words_of
from engine.evaluation.prompts import templates_of
from engine.evaluation.wordings import Words, escaped
from engine.model.plurals import plural
from schemas.concept import Concept
from schemas.evaluation import EvaluationPrompt, Group


def given_prompt(
    text: str, concept: Concept, *, known: KnownNames, words: Words
) -> EvaluationPrompt:
    """Return the evaluation prompt of a text that asks for an edited concept.

    `known` are all names, of which the longest counts: "a hot dog" does not say "dog".
    """
    template = said_template(text, concept, known=known)
    is_implicit = template is None
    if template is None:
        template = templates_of(concept.kind, words, 0)[Group.CONCEPT][0]
    return EvaluationPrompt(
        group=Group.IMPLICIT if is_implicit else Group.GIVEN,
        text=text,
        template=template,
        kind=concept.kind,
        name=concept.concept,
    )


def said_template(text: str, concept: Concept, *, known: KnownNames) -> str | None:
    """Return a text with a place for any name wherever it says the concept; None if it does not.

    The place is `{plural}` for a plural, `{article}` after "a" or "an", else `{name}`.
    """
    parts: list[str] = []
    stop = 0
    for mention in known.said(text):
        if mention.name != concept.concept:
            continue
        before, said = text[stop : mention.start], text[mention.start : mention.stop]
        first, article = _without_article(before)
        if words_of(said) != words_of(concept.concept) and words_of(said) == words_of(
            plural(concept.concept)
        ):
            parts += [escaped(before), "{plural}"]
        elif article:
            parts += [escaped(first), "{article}"]
        else:
            parts += [escaped(before), "{name}"]
        stop = mention.stop
    return "".join([*parts, escaped(text[stop:])]) if parts else None


def _without_article(before: str) -> tuple[str, bool]:
    """Return a text without "a" or "an" as its last word, and whether it had one."""
    bare = before.rstrip()
    first, gap, last = bare.rpartition(" ")
    is_article = bare != before and last.lower() in ("a", "an")
    return (first + gap, True) if is_article else (before, False)
