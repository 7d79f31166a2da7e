"""Other forms of a name that an edit takes along: plural, article, capitals, possessive.

A form is fitted and evaluated as the concept itself. They are English; a concept file's column
`forms` replaces them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.model.plurals import plural
from engine.model.vocabulary import _article
from schemas.concept import Concept, ConceptKind, same_text

ARTICLES = ("a", "an", "the")
NAMES = (ConceptKind.STYLE, ConceptKind.PERSON)
"""Kinds whose concepts are names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to write a name."""

    text: str
    """The name as this form writes it."""
    template: str
    """The words after an opening, with `{}` for the text."""
    evaluated: str
    """The template of evaluation prompts: `{opening}` and `{carrier}`, and for the name of each
    choice `{name}`, `{article}`, `{plural}`, `{capital}` or `{capital_article}`."""


def forms(text: str, *, kind: ConceptKind) -> dict[str, Form]:
    """Return the forms of a name of a kind by what they are; the name as given is not one."""
    found: dict[str, Form] = {}
    if kind is ConceptKind.OBJECT:
        if not same_text(plural(text), text):
            found["plural"] = Form(text=plural(text), template="{}", evaluated="{opening} {plural}")
        found["definite"] = Form(text=text, template="the {}", evaluated="{opening} the {name}")
        found["capital"] = Form(
            text=capital(text),
            template=f"{_article(text)} {{}}",
            evaluated="{opening} {capital_article}",
        )
    if kind in NAMES:
        found["capital"] = _of_name(
            capital(text), kind, "in the style of {}", "in the style of {capital}"
        )
        if text.split()[0].lower() not in ARTICLES:
            found["possessive"] = _of_name(text, kind, "in {}'s style", "in {name}'s style")
    return found


def _of_name(text: str, kind: ConceptKind, fitted: str, evaluated: str) -> Form:
    """Return the form of a style, which follows a carrier, or of a person."""
    if kind is ConceptKind.STYLE:
        template, asked = f"a picture {fitted}", f"{{opening}} {{carrier}} {evaluated}"
    elif "'s" in fitted:
        template, asked = "{}'s portrait", "{opening} {name}'s face"
    else:
        template, asked = "{}", "{opening} {capital}"
    return Form(text=text, template=template, evaluated=asked)


def capital(text: str) -> str:
    """Return a name in other capitals: "Cat" for "cat", "van gogh" for "Van Gogh"."""
    return text.title() if text == text.lower() else text.lower()


def facing_forms(concept: Concept, replacement: str) -> list[tuple[Form, Form]]:
    """Return the forms of a concept, each with that of the replacement that faces it.

    A form of the concept's own list that is none of its kind's faces the replacement as given.
    """
    said, facing = (forms(text, kind=concept.kind) for text in (concept.concept, replacement))
    if concept.forms is None:
        return [(form, facing[what]) for what, form in said.items() if what in facing]
    return [
        (_listed(text, concept.kind), _facing(text, said, facing, replacement, concept.kind))
        for text in concept.forms
    ]


def _facing(
    text: str,
    said: Mapping[str, Form],
    facing: Mapping[str, Form],
    replacement: str,
    kind: ConceptKind,
) -> Form:
    what = next((what for what, form in said.items() if form.text == text), None)
    faced = facing.get(what) if what else None
    return _listed(faced.text if faced else replacement, kind)


def _listed(text: str, kind: ConceptKind) -> Form:
    """Return a listed form, said as it is written."""
    template = "a picture in the style of {}" if kind is ConceptKind.STYLE else "{}"
    evaluated = {
        ConceptKind.STYLE: "{opening} {carrier} in the style of {name}",
        ConceptKind.OBJECT: "{opening} {article}",
    }.get(kind, "{opening} {name}")
    return Form(text=text, template=template, evaluated=evaluated)


def concept_forms(concept: Concept) -> list[Form]:
    """Return the forms of a concept: its own list, or those of its kind."""
    if concept.forms is not None:
        return [_listed(text, concept.kind) for text in concept.forms]
    return list(forms(concept.concept, kind=concept.kind).values())


def written_forms(concepts: Sequence[Concept]) -> dict[str, str]:
    """Return the listed forms of concepts, each with the concept that it stands for."""
    return {form: concept.concept for concept in concepts for form in concept.forms or ()}


def form_texts(concept: Concept) -> list[str]:
    """Return the forms of a concept as a reader sees them: "the cat", "Monet's"."""
    if concept.forms is not None:
        return list(concept.forms)
    short = {"definite": "the {}", "possessive": "{}'s"}
    found = forms(concept.concept, kind=concept.kind)
    return [short.get(what, "{}").replace("{}", form.text) for what, form in found.items()]
