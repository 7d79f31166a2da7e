"""Counterfactuals of captions: which fit, and those that a plan's own options give."""

# pyright: reportUnknownMemberType=false
# torch leaves parts of some methods without types.

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, cast

from schemas.caption import Caption, Occurrence
from schemas.concept import same_text
from schemas.errors import PlanError
from schemas.intervention import Intervention
from schemas.plan import TracePlan

ARTICLES = ("a", "an")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenized:
    """A plan's captions as one tokenizer of the model reads them."""

    tokenizer: Any
    ids_NL: Any
    """The token ids of each caption, padded."""
    spans: Sequence[Any]
    """The `engine.model.tokens.Span` of each caption's subject."""


def tokenized(plan: TracePlan, tokenizers: Sequence[Any]) -> list[Tokenized]:
    """Return a plan's captions as each tokenizer reads them.

    PlanError: a caption has too many tokens, or its subject has none.
    """
    from engine.model.tokens import find_subjects

    found = [find_subjects(t, plan.captions, plan.numerics.occurrence) for t in tokenizers]
    return [
        Tokenized(tokenizer=tokenizer, ids_NL=ids_NL, spans=spans)
        for tokenizer, (ids_NL, spans) in zip(tokenizers, found, strict=True)
    ]


def check_distinct(captions: Sequence[Caption], read: Sequence[Tokenized]) -> None:
    """Raise PlanError if two captions differ in nothing that the model reads: one would count
    twice."""
    seen: dict[object, Caption] = {}
    for n, caption in enumerate(captions):
        rows = [(each.ids_NL[n].numpy().tobytes(), each.spans[n]) for each in read]
        key = (caption.attribute, caption.target, caption.counterfactual, *rows)
        first = seen.setdefault(key, caption)
        if first is not caption:
            raise PlanError(
                f"captions {first.caption!r} and {caption.caption!r} are the same tokens to the "
                "model: leave one out"
            )


def with_counterfactuals(plan: TracePlan, read: Sequence[Tokenized]) -> TracePlan:
    """Return a plan whose captions have counterfactuals, if the matched control is to be traced.

    A caption without one gets another option of its attribute with as many tokens: of the plan's
    options or, without these, the subjects of its captions. It is drawn by hash among all that fit;
    where none does, the caption stays without.
    """
    if Intervention.MATCHED not in plan.interventions or plan.numerics.corruption != "noise":
        return plan
    options = {**subjects_of(plan.captions), **plan.options}
    lacking = [n for n, caption in enumerate(plan.captions) if caption.counterfactual is None]
    left = {n: _drawn(plan.captions[n], options[plan.captions[n].attribute]) for n in lacking}
    captions = list(plan.captions)
    while left:
        tried = {n: option for n, rest in left.items() if (option := next(rest, None))}
        asked = [_with(captions[n], option) for n, option in tried.items()]
        fitting = fits(dict(zip(tried, asked, strict=True)), read, plan.numerics.occurrence)
        for n, caption, is_fit in zip(tried, asked, fitting, strict=True):
            if is_fit:
                captions[n] = caption
        left = {n: left[n] for n in tried if captions[n].counterfactual is None}
    return plan.model_copy(update={"captions": tuple(captions)})


def subjects_of(captions: Sequence[Caption]) -> Mapping[str, tuple[str, ...]]:
    """Return the subjects of each attribute, which are its options by default."""
    attributes = dict.fromkeys(caption.attribute for caption in captions)
    return {
        name: tuple(dict.fromkeys(c.subject for c in captions if c.attribute == name))
        for name in attributes
    }


def fits(
    captions: Mapping[int, Caption], read: Sequence[Tokenized], occurrence: Occurrence
) -> list[bool]:
    """Return whether each caption's counterfactual changes tokens, and of its subject alone.

    `captions` are by their place in the plan. Every tokenizer of the model is asked. PlanError: a
    caption has no counterfactual.
    """
    from engine.model.tokens import refuse_several_vectors

    found, differs = [True] * len(captions), [False] * len(captions)
    if not captions:
        return found
    texts = [caption.counterfactual_text(occurrence) for caption in captions.values()]
    for tokens in read:
        refuse_several_vectors(tokens.tokenizer, texts)
        own_NL = cast("list[list[int]]", tokens.ids_NL[list(captions)].tolist())
        spans = [tokens.spans[place] for place in captions]
        others = tokens.tokenizer(texts, verbose=False).input_ids
        for n, (own, other, span) in enumerate(zip(own_NL, others, spans, strict=True)):
            # Where one is longer, the places of their ends differ.
            pairs = enumerate(zip(own[span.first :], other, strict=False), start=span.first)
            changed = {place for place, (before, after) in pairs if before != after}
            end = span.first + len(other) - 1
            found[n] &= end == span.eos and changed <= set(span.subject)
            differs[n] |= bool(changed)
    return [fit and differs[n] for n, fit in enumerate(found)]


def _drawn(caption: Caption, options: Sequence[str]) -> Iterator[str]:
    """Yield the options that may take the subject's place, in an order of the caption's own."""
    others = [o for o in options if not same_text(o, caption.subject) and _reads(caption, o)]
    yield from sorted(others, key=lambda option: _hash(caption, option))


def _hash(caption: Caption, option: str) -> str:
    return sha256("\n".join((caption.caption, caption.subject, option)).encode()).hexdigest()


def _reads(caption: Caption, option: str) -> bool:
    """Return whether an article before the subject suits an option: "an apple", not "an cat"."""
    start, _ = caption.subject_characters
    before = caption.caption[:start].lower().split()[-1:]
    has_article = bool(before) and before[0] in ARTICLES
    return not has_article or _has_vowel(option) == _has_vowel(caption.subject)


def _has_vowel(word: str) -> bool:
    return word[:1].lower() in "aeiou" and not word.lower().startswith("uni")


def _with(caption: Caption, counterfactual: str) -> Caption:
    return Caption(**{**caption.model_dump(), "counterfactual": counterfactual})
