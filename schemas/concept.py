"""A concept to edit out of a model, and what it becomes."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_CHARACTERS = 120
"""Longest concept or target; CLIP reads about 75 tokens, a template's words among them."""


class ConceptKind(StrEnum):
    """What a concept is an instance of; it decides the prompts that the edit is fitted on."""

    OBJECT = "object"
    STYLE = "style"
    COLOR = "color"
    ACTION = "action"
    PERSON = "person"


NEUTRAL_TARGETS: dict[ConceptKind, str] = {
    ConceptKind.OBJECT: "object",
    ConceptKind.STYLE: "photo",
    ConceptKind.COLOR: "plain",
    ConceptKind.ACTION: "standing",
    ConceptKind.PERSON: "person",
}
"""What a concept with an empty target becomes: the most general word of its kind."""


def same_text(left: str, right: str) -> bool:
    """Return whether two texts read the same to a tokenizer that lowercases and strips."""
    return " ".join(left.casefold().split()) == " ".join(right.casefold().split())


class Concept(BaseModel):
    """One row of a concept file."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    concept: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    """The words to edit out, as a prompt says them."""
    target: str = Field(default="", max_length=MAX_CHARACTERS)
    """The words that prompts with the concept should mean instead; empty: remove the concept."""
    kind: ConceptKind = ConceptKind.OBJECT

    @field_validator("concept", "target")
    @classmethod
    def _printable(cls, text: str) -> str:
        if not text.isprintable():
            raise ValueError("holds a line break or another control character")
        if text and not any(letter.isalnum() for letter in text):
            raise ValueError("holds no letter or digit")
        return text

    @field_validator("kind", mode="before")
    @classmethod
    def _kind_spelling(cls, kind: object) -> object:
        spelled = kind.strip().lower() if isinstance(kind, str) else kind
        return {"": "object", "colour": "color"}.get(spelled, spelled)  # type: ignore[arg-type]

    @model_validator(mode="after")
    def _differs_from_target(self) -> "Concept":
        if same_text(self.concept, self.target_text):
            raise ValueError(f"concept and target are both {self.concept!r}")
        return self

    @property
    def target_text(self) -> str:
        """The target, or the neutral target of the kind where none is given."""
        return self.target or NEUTRAL_TARGETS[self.kind]
