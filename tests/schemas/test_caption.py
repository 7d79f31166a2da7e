"""The mentions of a caption's subject: whole words, whatever form their accents are written in."""

import unicodedata

import pytest
from pydantic import ValidationError

from schemas.caption import Caption
from schemas.errors import PlanError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


def mentions(caption: str, subject: str) -> list[str]:
    found = Caption(caption=caption, subject=subject, attribute="object")
    return [caption[start:stop] for start, stop in found.mentions()]


@pytest.mark.parametrize(
    ("caption", "subject", "found"),
    [
        ("a castle and a Castle", "castle", ["castle", "Castle"]),
        (f"a {COMPOSED} and a {DECOMPOSED}", COMPOSED, [COMPOSED, DECOMPOSED]),
        (f"a {COMPOSED} and a {DECOMPOSED}", DECOMPOSED, [COMPOSED, DECOMPOSED]),
        (f"a cafe and a {DECOMPOSED}", "cafe", ["cafe"]),
        ("a hot dog and a hot  dog", "hot dog", ["hot dog", "hot  dog"]),
        ("a seacastle", "castle", ["castle"]),
        ("a (red) c++ and (red) c++", "(red) c++", ["(red) c++", "(red) c++"]),
    ],
)
def test_all_mentions_are_found(caption: str, subject: str, found: list[str]) -> None:
    assert mentions(caption, subject) == found


def test_an_option_in_another_form_is_the_subject_itself() -> None:
    caption = Caption(caption=f"a {COMPOSED}", subject=COMPOSED, attribute="object")
    with pytest.raises(PlanError, match="needs another option"):
        caption.alternatives([DECOMPOSED, COMPOSED.upper()])


@pytest.mark.parametrize("field", ["attribute", "target", "counterfactual"])
def test_a_blank_text_is_refused(field: str) -> None:
    fields = {"caption": "a cat", "subject": "cat", "attribute": "object", field: " \t"}
    with pytest.raises(ValidationError, match=f"{field} .* is blank"):
        Caption.model_validate(fields)
