"""Prompts of a user's own: which say their concept, and how their images are judged."""

from pathlib import Path

import pytest

from engine.editing.names import KnownNames
from engine.evaluation.given import given_prompt, said_template
from engine.evaluation.prompts import subjects
from engine.evaluation.wordings import fill, read_words, with_kept
from engine.model.registry import EMOJI_SD
from schemas.concept import Concept, ConceptKind
from schemas.evaluation import EFFICACY, Group

DOG = Concept(concept="dog", replacement="cat")
KNOWN = KnownNames(["dog", "cat", "hot dog", "owl"])


@pytest.mark.parametrize(
    ("text", "owl"),
    [
        ("a dog on a sofa", "an owl on a sofa"),
        ("my Dog and my cat", "my owl and my cat"),
        ("An image of an old dog", "An image of an old owl"),
        ("two dogs with a dog", "two owls with an owl"),
        ("a {strange} dog", "a {strange} owl"),
        ("a hot dog for the dog", "a hot dog for the owl"),
    ],
)
def test_a_prompt_is_judged_with_any_name_in_the_concepts_place(text: str, owl: str) -> None:
    template = said_template(text, DOG, known=KNOWN)
    assert template is not None
    assert fill(template, "owl") == owl
    assert fill(template, "dog").lower() == text.lower()


@pytest.mark.parametrize("text", ["a loyal pet that barks", "a hot dog", "dogma", "a cat"])
def test_a_prompt_without_the_name_is_implicit_and_judged_plainly(
    text: str, tmp_path: Path
) -> None:
    words = read_words(tmp_path, [DOG])
    prompt = given_prompt(text, DOG, known=KNOWN, words=words)
    assert prompt.group is Group.IMPLICIT
    assert prompt.group not in EFFICACY
    assert (prompt.text, prompt.name) == (text, "dog")
    assert fill(prompt.template or "", "owl") == "a rendering of an owl"


def test_given_prompts_are_drawn_with_their_own_concept_alone() -> None:
    neon = Concept(concept="neon", kind=ConceptKind.STYLE)
    words = read_words(EMOJI_SD, [DOG, neon])
    given = [given_prompt("a dog at sea", DOG, known=KNOWN, words=words)]
    plain, found = (subjects([DOG, neon], words, given=more) for more in ((), given))
    own = [p.text for p in found[0].prompts if p.group is Group.GIVEN]
    assert own == ["a dog at sea"]
    assert [len(s.prompts) for s in found] == [len(s.prompts) + (s.name == "dog") for s in plain]


def test_names_that_an_edit_keeps_are_evaluated_as_the_models_own() -> None:
    words = read_words(EMOJI_SD, [DOG])
    more = with_kept(words, ["hot dog house", words.names[ConceptKind.OBJECT][0]], DOG.kind)
    assert more.names[ConceptKind.OBJECT] == (*words.names[ConceptKind.OBJECT], "hot dog house")
    (house,) = [s for s in subjects([DOG], more) if s.name == "hot dog house"]
    assert {prompt.group for prompt in house.prompts} == {Group.KEPT}
