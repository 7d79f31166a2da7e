"""A concept to edit out of a model, and its replacement."""

import unicodedata
from enum import StrEnum
from typing import ClassVar

from pydantic import ConfigDict, Field, field_validator, model_validator

from schemas.checked_model import CheckedModel
from schemas.documents import JsonError, is_mapping, json_value
from schemas.errors import ConceptError, DqfError

MAX_CHARACTERS = 120
"""Longest concept or replacement; CLIP reads about 75 tokens, which include a template's words."""
MAX_TEMPLATE = 300
"""Longest template of a prompt, in characters."""
MAX_WEIGHT = 1e6
"""Largest weight: a larger one would make the other concepts vanish by rounding."""
OLD_REPLACEMENT = "target"
"""Name of the field `replacement` in older concept files, which is still read."""
PLACE = "{}"
"""Placeholder for the concept in a template."""


class ConceptKind(StrEnum):
    """The kind of a concept, which decides the prompts that the edit is fitted on."""

    OBJECT = "object"
    STYLE = "style"
    COLOR = "color"
    ACTION = "action"
    PERSON = "person"
    FACT = "fact"
    """A fact that the world may change: "the president of the US"."""


def spelled(word: object) -> object:
    """Return a kind or mode as it is spelled here, whatever its capitals; other values as they
    are."""
    plain = word.strip().lower() if isinstance(word, str) else word
    return "color" if plain == "colour" else plain


class ConceptMode(StrEnum):
    """The goal for a concept."""

    REMOVE = "remove"
    """The concept should no longer be drawn; its replacement only fills its place."""
    UPDATE = "update"
    """The replacement should be drawn in the concept's place."""


NEUTRAL_REPLACEMENTS: dict[ConceptKind, str] = {
    ConceptKind.OBJECT: "object",
    ConceptKind.STYLE: "photo",
    ConceptKind.COLOR: "plain",
    ConceptKind.ACTION: "standing",
    ConceptKind.PERSON: "person",
    ConceptKind.FACT: "something",
}
"""Replacements of concepts that give none: the most general word of each kind."""


def plain_text(text: str) -> str:
    """Return the text as a tokenizer that composes, lowers and strips reads it.

    Not case-folded: "Straße" and "Strasse" are other tokens.
    """
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def same_text(left: str, right: str) -> bool:
    """Return whether two texts read the same to a tokenizer that lowercases and strips."""
    return plain_text(left) == plain_text(right)


class Concept(CheckedModel):
    """One row of a concept file; an empty field counts as not given."""

    refused_as: ClassVar[type[DqfError]] = ConceptError
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    concept: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    """The words to edit out, as a prompt says them."""
    replacement: str = Field(default="", max_length=MAX_CHARACTERS)
    """The words that prompts with the concept should mean instead; empty: remove the concept."""
    kind: ConceptKind = ConceptKind.OBJECT
    mode: ConceptMode = ConceptMode.REMOVE
    """By default `update` where a replacement is given, else `remove`."""
    weight: float = Field(default=1.0, gt=0, le=MAX_WEIGHT, allow_inf_nan=False)
    """Weight of the concept among the concepts of an edit."""
    prompts: tuple[str, ...] = ()
    """Templates with one `{}` each, in place of the kind's; in text separated by `|` or as JSON."""
    forms: tuple[str, ...] | None = None
    """Other writings of the concept that are edited with it ("kitten|kittens"; `[]`: none); by
    default those of the kind, as plural and capitals."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty_fields(cls, fields: object) -> object:
        if not is_mapping(fields):
            return fields
        given = {name: value for name, value in fields.items() if not _is_blank(value)}
        if OLD_REPLACEMENT in given:
            if "replacement" in given:
                raise ValueError(f"{OLD_REPLACEMENT} is the old name of replacement: give one")
            given["replacement"] = given.pop(OLD_REPLACEMENT)
        default = ConceptMode.UPDATE if "replacement" in given else ConceptMode.REMOVE
        return {"concept": "", "mode": default, **given}

    @field_validator("concept", "replacement")
    @classmethod
    def _says_something(cls, text: str) -> str:
        return named(text) if text else text

    @field_validator("kind", "mode", mode="before")
    @classmethod
    def _spelling(cls, word: object) -> object:
        return spelled(word)

    @field_validator("prompts", "forms", mode="before")
    @classmethod
    def _as_list(cls, prompts: object) -> object:
        if not isinstance(prompts, str):
            return prompts
        if not prompts.lstrip().startswith("["):
            return prompts.split("|")
        try:
            return json_value(prompts)
        except JsonError as error:
            reason = str(error).removeprefix("is ")
            raise ValueError(f"starts with [ but is not a JSON list: {reason}") from error

    @field_validator("prompts")
    @classmethod
    def _say_the_concept_once(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        for template in prompts:
            _check_printable(template)
            if template.count(PLACE) != 1:
                found = template.count(PLACE)
                raise ValueError(f"template {template!r} has {found} {PLACE}, not one")
            if len(template) > MAX_TEMPLATE:
                raise ValueError(f"template {template[:20]!r}... is over {MAX_TEMPLATE} characters")
        repeated = next((t for n, t in enumerate(prompts) if t in prompts[:n]), None)
        if repeated is not None:
            raise ValueError(f"template {repeated!r} is given twice")
        return prompts

    @field_validator("forms")
    @classmethod
    def _are_other_writings(cls, forms: tuple[str, ...] | None) -> tuple[str, ...] | None:
        stripped = tuple(form.strip() for form in forms or ())
        for number, form in enumerate(stripped):
            cls._says_something(form)
            if not form or len(form) > MAX_CHARACTERS:
                raise ValueError(f"form {form[:20]!r} has no character, or over {MAX_CHARACTERS}")
            if form in stripped[:number]:
                raise ValueError(f"form {form!r} is given twice")
        return None if forms is None else stripped

    @model_validator(mode="after")
    def _is_consistent(self) -> "Concept":
        if self.mode is ConceptMode.UPDATE and not self.replacement:
            raise ValueError(f"mode update of {self.concept!r} needs a replacement")
        if same_text(self.concept, self.replacement_text):
            raise ValueError(f"concept and replacement are both {self.concept!r}")
        return self

    @property
    def replacement_text(self) -> str:
        """The replacement, or the neutral replacement of the kind where none is given."""
        return self.replacement or NEUTRAL_REPLACEMENTS[self.kind]


def named(text: str) -> str:
    """Return a text that can name something; ValueError: it has no letter, or a control
    character."""
    _check_printable(text)
    if not any(letter.isalnum() for letter in text):
        raise ValueError("holds no letter or digit")
    return text


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _check_printable(text: str) -> None:
    if not text.isprintable():
        raise ValueError("holds a line break or another control character")
