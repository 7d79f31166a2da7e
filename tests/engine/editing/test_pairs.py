"""The pairs that an edit is fitted on: batches of several kinds, forms, longer names."""

import pytest

from engine.editing.edit_prompts import edit_prompts
from engine.editing.forms import facing_forms, form_texts
from engine.editing.names import KnownNames
from engine.editing.pairs import PromptPair, prompt_pairs
from engine.editing.prompts import general_captions, known_names, split_by_mention
from engine.model.vocabulary import COMPOUNDS, Phrasebook
from schemas.concept import Concept, ConceptKind
from schemas.edit_settings import EditSettings

OWN_WORDS = Phrasebook(
    modifiers=("", "red", "blue"),
    endings=("", "in the style of neon", "in the style of noto"),
    objects=("cat", "dog", "bus", "owl", "house", "red panda", "panda"),
    styles=("noto", "neon", "stencil"),
    carriers=("a cat", "an owl", "a bus"),
    neutral=frozenset(),
)
GENERAL = Phrasebook()
MIXED = (
    Concept(concept="cat", replacement="owl"),
    Concept(concept="bus"),
    Concept(concept="neon", replacement="stencil", kind=ConceptKind.STYLE),
    Concept(concept="noto", kind=ConceptKind.STYLE),
    Concept(concept="red", replacement="blue", kind=ConceptKind.COLOR),
)


def pairs_of(concept: str, pairs: list[PromptPair], kind: ConceptKind) -> list[PromptPair]:
    known = KnownNames([concept])
    return [
        pair
        for pair in pairs
        if pair.source.attribute == kind.value and known.said(pair.source.subject)
    ]


@pytest.mark.parametrize("book", [OWN_WORDS, GENERAL])
def test_no_replacement_prompt_says_a_concept_of_the_batch(book: Phrasebook) -> None:
    edited = KnownNames([concept.concept for concept in MIXED])
    known = known_names(MIXED, book=book)  # "red panda" says no "red"
    pairs = prompt_pairs(MIXED, book=book)
    assert {pair.source.attribute for pair in pairs} == {"object", "style", "color"}
    for pair in pairs:
        start, stop = pair.replacement.subject_characters
        assert pair.replacement.caption[start:stop] == pair.replacement.subject
        assert not known.says_any(pair.replacement.caption, edited), pair.replacement.caption


def test_another_concept_is_replaced_by_its_own_replacement() -> None:
    pairs = {p.source.caption: p.replacement.caption for p in prompt_pairs(MIXED, book=OWN_WORDS)}
    styled = "a picture of a red cat in the style of neon"
    assert pairs[styled] == "a picture of a blue owl in the style of stencil"
    assert pairs["a photo of a red cat"] == "a photo of a blue owl"


def test_articles_and_numbers_follow_what_is_replaced() -> None:
    batch = [
        Concept(concept="monet", replacement="x", kind=ConceptKind.STYLE,
                prompts=("two cats and a cat by {}",)),
        Concept(concept="cat", replacement="owl"),
    ]  # fmt: skip
    (pair, *_) = prompt_pairs(batch, book=GENERAL)
    assert pair.source.caption == "two cats and a cat by monet"
    assert pair.replacement.caption == "two owls and an owl by x"
    assert pair.replacement.subject_characters == (23, 24)


def test_a_batch_of_one_has_the_same_words_on_both_sides() -> None:
    pairs = prompt_pairs([Concept(concept="cat", replacement="owl")], book=OWN_WORDS)
    styled = [pair for pair in pairs if "neon" in pair.source.caption]
    assert styled
    assert all("neon" in pair.replacement.caption for pair in styled)


def test_no_pair_says_a_longer_name_that_is_kept() -> None:
    pairs = prompt_pairs([Concept(concept="panda", replacement="cat")], book=OWN_WORDS)
    said = [pair.source.caption for pair in pairs]
    assert any("blue panda" in caption for caption in said)
    assert not [caption for caption in said if "red panda" in caption]
    assert sum(pair.weight for pair in pairs) == pytest.approx(1.0)


def test_forms_are_fitted_unless_they_are_off_or_replaced() -> None:
    cat = Concept(concept="cat", replacement="ox")
    said = {p.source.subject: p.replacement.subject for p in prompt_pairs([cat], book=GENERAL)}
    assert said == {"cat": "ox", "cats": "oxen", "Cat": "Ox"}
    plain = prompt_pairs([cat], book=GENERAL, forms=False)
    assert {pair.source.subject for pair in plain} == {"cat"}
    listed = cat.model_copy(update={"forms": ("kitten", "cats")})
    said = {p.source.subject: p.replacement.subject for p in prompt_pairs([listed], book=GENERAL)}
    assert said == {"cat": "ox", "kitten": "ox", "cats": "oxen"}
    none = cat.model_copy(update={"forms": ()})
    assert {pair.source.subject for pair in prompt_pairs([none], book=GENERAL)} == {"cat"}


def test_names_have_a_possessive_and_styles_that_are_none_have_not() -> None:
    monet = Concept(concept="Claude Monet", kind=ConceptKind.STYLE)
    assert form_texts(monet) == ["claude monet", "Claude Monet's"]
    assert form_texts(Concept(concept="a watercolor", kind=ConceptKind.STYLE)) == ["A Watercolor"]
    assert form_texts(Concept(concept="jumping", kind=ConceptKind.ACTION)) == []
    said = [pair.source.caption for pair in prompt_pairs([monet], book=GENERAL)]
    assert any("in Claude Monet's style" in caption for caption in said)
    person = Concept(concept="Ada", replacement="Grace", kind=ConceptKind.PERSON)
    faced = [(a.template.replace("{}", a.text), b.text) for a, b in facing_forms(person, "Grace")]
    assert ("Ada's portrait", "Grace") in faced


def test_objects_are_fitted_and_kept_with_another() -> None:
    pairs = prompt_pairs([Concept(concept="cat", replacement="owl")], book=OWN_WORDS)
    both = [
        (p.source.caption, p.replacement.caption) for p in pairs if " and a" in p.source.caption
    ]
    assert len(both) == 2
    for source, replacement in both:
        assert source.replace("a cat", "an owl") == replacement
    captions = [caption.caption for caption in general_captions(book=OWN_WORDS)]
    assert [caption for caption in captions if " and a" in caption]
    assert "cats" in captions


def test_a_longer_kept_name_is_kept_and_plurals_of_a_concept_are_not() -> None:
    concepts = [Concept(concept="dog", replacement="cat")]
    known = known_names(concepts, book=GENERAL)
    kept, said = split_by_mention(general_captions(book=GENERAL), concepts, known=known)
    kept_texts = {caption.caption for caption in kept}
    assert [text for text in kept_texts if "hot dog" in text]
    assert "dogs" in {caption.caption for caption in said}
    assert not [text for text in kept_texts if "dog" in text and "hot dog" not in text]


@pytest.mark.parametrize(
    ("edited", "compound"), [("pig", "guinea pig"), ("lion", "sea lion"), ("oven", "Dutch oven")]
)
def test_a_compound_that_is_no_kind_of_its_word_is_kept(edited: str, compound: str) -> None:
    book = Phrasebook(compounds=COMPOUNDS)
    concepts = [Concept(concept=edited, replacement="boat")]
    said = edit_prompts(concepts, book=book, settings=EditSettings())
    further = {caption.caption for caption in said.further}
    assert {caption.subject.lower() for caption in said.further} == {
        compound.lower(), f"{compound.lower()}s"
    }  # fmt: skip
    assert f"an image of a {compound}" in further
    fitted = {pair.source.caption for pair in said.pairs}
    assert f"an image of the {edited}" in fitted
    assert not further & fitted


def test_other_compounds_and_the_edited_ones_are_not_kept() -> None:
    book = Phrasebook(compounds=COMPOUNDS)
    for name in ("boat", "guinea pig", "polar bear"):
        said = edit_prompts([Concept(concept=name)], book=book, settings=EditSettings())
        assert not said.further


def test_names_of_a_users_own_are_kept_and_known() -> None:
    kept = (
        Concept(concept="dog house"),
        Concept(concept="Snoopy", kind=ConceptKind.PERSON, prompts=("a comic of {}", "{}, a dog")),
    )
    concepts = [Concept(concept="dog", replacement="boat")]
    said = edit_prompts(concepts, book=GENERAL, settings=EditSettings(keep=kept))
    texts = {caption.caption for caption in said.further}
    assert {"an image of a dog house", "a comic of Snoopy"} <= texts
    assert "Snoopy, a dog" not in texts  # it says what is edited
    without = edit_prompts(concepts, book=GENERAL, settings=EditSettings())
    assert not without.further
    assert said.general == without.general
    assert said.mentioning == without.mentioning


def test_compounds_are_names_of_their_source() -> None:
    from open_clip import IMAGENET_CLASSNAMES

    named = [f" {name.lower()} " for name in IMAGENET_CLASSNAMES]
    assert [name for name in COMPOUNDS if not any(f" {name.lower()} " in n for n in named)] == []
