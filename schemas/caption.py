"""A caption: its text, its subject, its attribute and what it is scored against."""

import re
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.content_id import content_id
from schemas.errors import PlanError


class Caption(BaseModel):
    """A caption, the subject whose embedding is noised, and the attribute under study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    caption: str = Field(min_length=1)
    subject: str = Field(min_length=1)
    """The words that carry the attribute; they occur in the caption, verbatim."""
    attribute: str = Field(min_length=1)
    target: str | None = None
    """Text of the attribute alone, which images are scored against; by default the subject."""
    counterfactual: str | None = None
    """Words that take the subject's place where corruption is by counterfactual: as many tokens."""

    @model_validator(mode="after")
    def _subject_in_caption(self) -> "Caption":
        if self.subject not in self.caption:
            raise ValueError(f"subject {self.subject!r} does not occur in caption {self.caption!r}")
        return self

    @property
    def target_text(self) -> str:
        """The text of the attribute alone."""
        return self.target if self.target is not None else self.subject

    @property
    def counterfactual_text(self) -> str:
        """The caption with the subject replaced; PlanError if no counterfactual is given."""
        if self.counterfactual is None:
            raise PlanError(
                f"caption {self.caption!r} has no counterfactual: give what replaces the subject "
                f"{self.subject!r}"
            )
        start, stop = self.subject_characters
        return self.caption[:start] + self.counterfactual + self.caption[stop:]

    @property
    def subject_characters(self) -> tuple[int, int]:
        """Characters of the subject's first occurrence as whole words, or else of its first one."""
        word = re.search(rf"(?<!\w){re.escape(self.subject)}(?!\w)", self.caption)
        start = word.start() if word else self.caption.index(self.subject)
        return start, start + len(self.subject)

    @cached_property
    def id(self) -> str:
        """Content hash of this caption row."""
        return content_id(self.model_dump())
