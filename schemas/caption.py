"""A caption: its text, its subject, its attribute and what it is scored against."""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from schemas.checked_model import CheckedModel
from schemas.concept import same_text
from schemas.content_id import content_id
from schemas.errors import PlanError

Occurrence = Literal["all", "first", "last"]
"""Which mentions of its subject a caption is corrupted at."""
LETTER = r"[\w\u0300-\u036f]"
"""A character of a word, with the accents that decomposed text (NFD) writes after their letter."""


class Caption(CheckedModel):
    """A caption, the subject whose embedding is noised, and the attribute under study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    caption: str = Field(min_length=1)
    subject: str = Field(min_length=1)
    """The words that carry the attribute; they occur in the caption, verbatim."""
    attribute: str = Field(min_length=1, max_length=200)
    target: str | None = None
    """Text that images are scored against; by default the subject. It says the attribute, and may
    name the object too."""
    counterfactual: str | None = None
    """Words that take the subject's place where corruption is by counterfactual: as many tokens."""

    @model_validator(mode="after")
    def _subject_in_caption(self) -> "Caption":
        if self.subject not in self.caption:
            raise ValueError(f"subject {self.subject!r} does not occur in caption {self.caption!r}")
        for name in ("attribute", "target", "counterfactual"):
            text: str | None = getattr(self, name)
            if text is not None and not text.strip():
                raise ValueError(f"{name} {text!r} is blank: write one, or leave it out")
        return self

    @property
    def target_text(self) -> str:
        """The text that says the attribute."""
        return self.target if self.target is not None else self.subject

    def alternatives(self, options: Sequence[str]) -> tuple[str, ...]:
        """Return the target with each of the other options of the attribute in the subject's place.

        PlanError: there is no other option, or the target does not say the subject.
        """
        others = [o for o in dict.fromkeys(options) if not same_text(o, self.subject)]
        if not others:
            raise PlanError(
                f"the margin of attribute {self.attribute} needs another option than "
                f"{self.subject!r}: give some with --options FILE"
            )
        said = _whole(self.subject).search(self.target_text)
        if said is None:
            raise PlanError(
                f"the margin needs targets that say the subject: {self.target_text!r} does not say "
                f"{self.subject!r}"
            )
        before, after = self.target_text[: said.start()], self.target_text[said.end() :]
        return tuple(f"{before}{option}{after}" for option in others)

    def counterfactual_text(self, occurrence: Occurrence = "all") -> str:
        """Return the caption with its mentions replaced; PlanError if it has no counterfactual."""
        if self.counterfactual is None:
            raise PlanError(
                f"caption {self.caption!r} has no counterfactual: give what replaces the subject "
                f"{self.subject!r}"
            )
        text = self.caption
        for start, stop in reversed(self.mentions(occurrence)):
            text = text[:start] + self.counterfactual + text[stop:]
        return text

    def mentions(self, occurrence: Occurrence = "all") -> tuple[tuple[int, int], ...]:
        """Return the characters of the subject's mentions: all, the first alone, or the last.

        They are whole words, in capitals or not and with composed accents or not, as most
        tokenizers lower and compose them; where it is not a whole word, any characters that are
        the subject's.
        """
        found = tuple(match.span() for match in _whole(self.subject).finditer(self.caption))
        if not found:
            characters = re.finditer(re.escape(self.subject), self.caption)
            found = tuple(match.span() for match in characters)
        return {"all": found, "first": found[:1], "last": found[-1:]}[occurrence]

    @property
    def subject_characters(self) -> tuple[int, int]:
        """The characters of the subject's first mention."""
        return self.mentions("first")[0]

    @cached_property
    def id(self) -> str:
        """Content hash of this caption row."""
        return content_id(self.model_dump())


@cache
def _whole(text: str) -> re.Pattern[str]:
    """Return the pattern of a text as whole words, with any blanks between them."""
    words = [
        "|".join(re.escape(word) for word in dict.fromkeys((w, _form("NFC", w), _form("NFD", w))))
        for w in text.split() or [text]
    ]
    inner = r"\s+".join(f"(?:{word})" for word in words)
    return re.compile(f"(?<!{LETTER}){inner}(?!{LETTER})", re.IGNORECASE)


def _form(form: Literal["NFC", "NFD"], word: str) -> str:
    return unicodedata.normalize(form, word)
