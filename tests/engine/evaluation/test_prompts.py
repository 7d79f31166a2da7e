"""The prompts of an evaluation: unseen, complete, and without what was removed."""

import json
from pathlib import Path

import pytest

from engine.editing.pairs import prompt_pairs
from engine.editing.prompts import general_captions
from engine.evaluation.prompts import subjects
from engine.evaluation.wordings import choices, fill, read_words
from engine.model.registry import EMOJI_SD
from engine.model.vocabulary import read_phrasebook
from schemas.concept import Concept, ConceptKind, ConceptMode
from schemas.evaluation import EFFICACY, Group
from schemas.prompt_set import PromptSet

KINDS = [
    Concept(concept="cat", replacement="dog"),
    Concept(concept="neon", kind=ConceptKind.STYLE),
    Concept(concept="red", replacement="green", kind=ConceptKind.COLOR),
    Concept(
        concept="Ada Lovelace",
        replacement="a poet",
        kind=ConceptKind.PERSON,
        mode=ConceptMode.REMOVE,
    ),
    Concept(concept="the mayor", replacement="Ann", kind=ConceptKind.FACT),
    Concept(concept="jumping", kind=ConceptKind.ACTION),
    Concept(concept="a {weird} name"),
]


@pytest.mark.parametrize("has_vocabulary", [True, False])
def test_prompts_of_all_kinds_are_unseen_and_mention_no_other_concept(
    has_vocabulary: bool, tmp_path: Path
) -> None:
    folder = EMOJI_SD if has_vocabulary else tmp_path
    words, book = read_words(folder, KINDS), read_phrasebook(folder)
    names = choices(KINDS, words)
    found = subjects(KINDS, words)
    fitted = {
        caption.caption
        for pair in prompt_pairs(KINDS, book=book)
        for caption in (pair.source, pair.replacement)
    } | {caption.caption for caption in general_captions(book=book)}
    for concept, subject in zip(KINDS, found, strict=False):
        assert (subject.name, subject.kind) == (concept.concept, concept.kind)
        updated = concept.mode is ConceptMode.UPDATE
        assert subject.replacement == (concept.replacement if updated else None)
        assert {p.group for p in subject.prompts} & set(EFFICACY)
    for subject in found:
        for prompt in subject.prompts:
            if prompt.template is None:
                continue
            assert prompt.text == fill(prompt.template, prompt.name or "")
            assert prompt.name in names[prompt.kind or ConceptKind.OBJECT]
            assert prompt.text not in fitted
    for subject in found[len(KINDS) :]:
        for prompt in subject.prompts:
            spoken = f" {prompt.text} "
            assert not any(f" {concept.concept} " in spoken for concept in KINDS)


def test_words_next_to_an_updated_concept_are_judged_as_those_of_its_target() -> None:
    found = subjects(KINDS, read_words(EMOJI_SD, KINDS))
    cat, neon, red = found[:3]
    edited = {prompt.group: prompt.edited_template for prompt in cat.prompts}
    assert edited[Group.STYLE] == "a drawing of a dog in the style of {name}"
    assert edited[Group.COLOR] == "a drawing of {article} dog"
    assert {edited[group] for group in EFFICACY if group in edited} == {None}
    assert {p.edited_template for p in red.prompts if p.group is Group.OBJECT} == {
        "a drawing of a green {name}"
    }
    assert {prompt.edited_template for prompt in neon.prompts} == {None}


def test_every_other_name_is_kept_and_other_kinds_are_unrelated() -> None:
    vocabulary = json.loads((EMOJI_SD / "vocabulary.json").read_text())
    concepts = KINDS[:1]
    found = subjects(concepts, read_words(EMOJI_SD, concepts))
    kept = [s.name for s in found if s.prompts[0].group is Group.KEPT]
    assert kept == [name for name in vocabulary["objects"] if name != "cat"]
    unrelated = {s.name for s in found if s.prompts[0].group is Group.UNRELATED}
    assert unrelated == {*vocabulary["styles"], *vocabulary["colors"]} - {"natural"}
    small = subjects(concepts, read_words(EMOJI_SD, concepts), prompt_set=PromptSet.SMALL)
    assert sum(len(s.prompts) for s in small) < 0.5 * sum(len(s.prompts) for s in found)


def test_choices_are_concepts_given_targets_and_names_each_once(tmp_path: Path) -> None:
    concepts = [Concept(concept="Cat"), Concept(concept="unheard of", replacement="also new")]
    names = choices(concepts, read_words(tmp_path, concepts))[ConceptKind.OBJECT]
    assert names[:3] == ("Cat", "unheard of", "also new")
    assert len({name.casefold() for name in names}) == len(names)
    assert "object" not in names
    person = Concept(concept="Ada", replacement="Grace", kind=ConceptKind.PERSON)
    assert choices([person], read_words(tmp_path, [person]))[ConceptKind.PERSON] == ("Ada", "Grace")


def test_a_few_prompts_of_each_group_are_shown() -> None:
    found = subjects(KINDS[:1], read_words(EMOJI_SD, KINDS[:1]))
    for group in Group:
        shown = [p for s in found for p in s.prompts if p.group is group and p.shown]
        there = [s for s in found if any(p.group is group for p in s.prompts)]
        assert len(shown) == min(4, len(there))


def test_forms_are_asked_for_and_judged_among_names_in_the_same_form() -> None:
    concepts = [
        Concept(concept="cat"),
        Concept(concept="neon", kind=ConceptKind.STYLE),
        Concept(concept="fox", forms=("vixen",)),
    ]
    words = read_words(EMOJI_SD, concepts)
    cat, neon, fox = subjects(concepts, words)[:3]
    asked = [[p for p in s.prompts if p.group is Group.FORM] for s in (cat, neon, fox)]
    assert [p.text for p in asked[0]] == [
        "a drawing of cats", "a drawing of the cat", "a drawing of a Cat"
    ]  # fmt: skip
    assert fill(asked[0][0].template or "", "bus") == "a drawing of buses"
    assert [p.text.rpartition(" in ")[2] for p in asked[1]] == ["the style of Neon", "neon's style"]
    assert [(p.text, p.template) for p in asked[2]] == [
        ("a drawing of vixen", "a drawing of {article}")
    ]
    plain = subjects(concepts, words, forms=False)
    assert not [p for s in plain for p in s.prompts if p.group is Group.FORM]


def test_general_prompts_say_no_concept_but_longer_names(tmp_path: Path) -> None:
    park = [Concept(concept="park"), Concept(concept="light", replacement="lamp")]
    general = read_words(tmp_path, park).general
    assert not [text for text in general if "park" in text.split()]
    assert "sunlight in a dense forest" in general
