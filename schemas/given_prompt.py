"""A prompt of a user's own, on which an edit is evaluated besides those that dqf makes."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.concept import MAX_CHARACTERS, ConceptKind, spelled

MAX_PROMPT = 1000
"""Longest prompt, in characters; the model's tokenizer has a limit of its own."""


class GivenPrompt(BaseModel):
    """One row of a file of prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    concept: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    """The edited concept that the prompt says, or means without its name."""
    prompt: str = Field(min_length=1, max_length=MAX_PROMPT)
    kind: ConceptKind | None = None
    """The concept's kind, where one name is edited as several kinds."""

    @field_validator("kind", mode="before")
    @classmethod
    def _none_if_empty(cls, kind: object) -> object:
        word = spelled(kind)
        return None if word == "" else word

    @field_validator("prompt")
    @classmethod
    def _is_one_line(cls, prompt: str) -> str:
        if not prompt.isprintable():
            raise ValueError("holds a line break or another control character")
        return prompt
