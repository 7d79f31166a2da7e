"""The mentions of a caption's subject: whole words, whatever form their accents are written in."""

import unicodedata
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from schemas.caption import Caption
from schemas.concept import Concept
from schemas.errors import ConceptError, DqfError, PlanError
from schemas.numerics import Numerics

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


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: Caption(caption="a", subject="b", attribute="c"), PlanError, "Caption: subject"),
        (lambda: Caption(caption=5, subject="b", attribute="c"), PlanError, "caption: .*got 5"),  # pyright: ignore
        (lambda: Numerics(steps=0), PlanError, "Numerics: steps: .*got 0"),
        (lambda: Numerics(steps=True), PlanError, "steps is true: give a number"),
        (lambda: Concept(concept="cat", replacement="Cat"), ConceptError, "are both 'cat'"),
        (lambda: Concept(concept="cat", weight=float("nan")), ConceptError, "weight: .*got nan"),
    ],
)
def test_a_wrong_value_in_python_is_one_sentence(
    make: Callable[[], object], error: type[DqfError], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        make()
    assert "\n" not in str(raised.value)
