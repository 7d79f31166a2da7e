"""Subject spans, by character offsets."""

from typing import Any

import pytest
from diffusers.loaders import TextualInversionLoaderMixin
from hypothesis import given
from hypothesis import strategies as st

from engine.model.families.deepfloyd import DeepFloydIF
from engine.model.tokens import TemplateTokenizer, find_subject, find_subjects, tokenize
from schemas.caption import Caption
from schemas.errors import PlanError
from schemas.intervention import TokenRole
from tests.models.families import open_clip_tokenizer, t5_tokenizer
from tests.models.tiny import LENGTH, build_tokenizer

TOKENIZER = build_tokenizer()
T5 = DeepFloydIF().prepare_tokenizer(t5_tokenizer(), part="text_encoder", denoiser=None)
WORDS = ("apple", "castle", "hippopotamus", "sea", "night", "Forest")


def text_of(tokens: list[int]) -> str:
    return str(TOKENIZER.decode(tokens)).replace(" ", "").lower()


@given(
    before=st.lists(st.sampled_from(("a", "red", "photo", "of")), max_size=3),
    subject=st.lists(st.sampled_from(WORDS), min_size=1, max_size=1),
    after=st.lists(st.sampled_from(("by", "the", "table")), max_size=3),
)
def test_the_span_decodes_to_the_subject(
    before: list[str], subject: list[str], after: list[str]
) -> None:
    words = " ".join(subject)
    caption = Caption(
        caption=" ".join([*before, *subject, *after]), subject=words, attribute="object"
    )
    span = find_subject(TOKENIZER, caption)
    ids = tokenize(TOKENIZER, [caption.caption])[0].tolist()
    assert text_of(ids[span.start : span.stop]) == words.replace(" ", "").lower()
    assert span.last == span.stop - 1


def test_a_word_that_only_contains_the_subject_is_passed_over() -> None:
    caption = Caption(caption="seaside by the sea", subject="sea", attribute="object")
    span = find_subject(TOKENIZER, caption)
    offsets = TOKENIZER(caption.caption, return_offsets_mapping=True).offset_mapping
    assert offsets[span.start][0] == caption.caption.rindex("sea")


def test_a_caption_over_the_limit_names_both_numbers() -> None:
    caption = Caption(caption="apple " * 40 + "castle", subject="castle", attribute="object")
    with pytest.raises(PlanError, match=rf"has \d+ tokens.*limit is {LENGTH}"):
        find_subject(TOKENIZER, caption)


@given(
    before=st.lists(st.sampled_from(("a", "Red", "photo", "of")), max_size=3),
    subject=st.lists(st.sampled_from(WORDS), min_size=1, max_size=2),
    after=st.lists(st.sampled_from(("by", "the", "table")), max_size=3),
)
def test_t5s_span_decodes_to_the_subject_without_a_start_token(
    before: list[str], subject: list[str], after: list[str]
) -> None:
    words = " ".join(subject)
    caption = Caption(
        caption=" ".join([*before, *subject, *after]), subject=words, attribute="object"
    )
    span = find_subject(T5, caption)
    ids = tokenize(T5, [caption.caption])[0].tolist()
    assert T5.decode(ids[span.start : span.stop]) == words.lower()
    assert ids[span.eos] == T5.eos_token_id
    assert span.words == 0
    assert set(ids[span.eos + 1 :]) == {T5.pad_token_id}


def test_padding_with_an_ordinary_token_is_no_part_of_the_caption() -> None:
    tokenizer = open_clip_tokenizer()
    caption = Caption(caption="a red apple!", subject="apple", attribute="object")
    span = find_subject(tokenizer, caption)
    ids = tokenize(tokenizer, [caption.caption])[0].tolist()
    assert ids[span.eos] == tokenizer.eos_token_id
    assert tokenizer.pad_token_id == 0
    assert set(ids[span.eos + 1 :]) == {0}


MENTIONS = Caption(
    caption="a castle by a Castle, castles and a castle", subject="castle", attribute="object"
)


@pytest.mark.parametrize(
    ("occurrence", "found"), [("all", [2, 14, 36]), ("first", [2]), ("last", [36])]
)
def test_mentions_are_whole_words_in_any_case(occurrence: Any, found: list[int]) -> None:
    assert [start for start, _ in MENTIONS.mentions(occurrence)] == found


def test_roles_follow_the_last_mention_and_the_subject_is_all_of_them() -> None:
    span = find_subject(TOKENIZER, MENTIONS, "all")
    last = find_subject(TOKENIZER, MENTIONS, "last")
    first = find_subject(TOKENIZER, MENTIONS)
    assert first == find_subject(TOKENIZER, MENTIONS, "first")
    (role,) = span.positions(TokenRole.LAST_SUBJECT, 24)
    assert role == (last.stop - 1,)
    assert span.positions(TokenRole.FIRST_SUBJECT, 24) == [(first.start,)]
    (subject,) = span.positions(TokenRole.SUBJECT, 24)
    assert set(first.subject) | set(last.subject) < set(subject)
    ids = TOKENIZER(MENTIONS.caption).input_ids
    assert [ids[p] for p in subject] == [ids[p] for p in first.subject] * 3


def test_a_counterfactual_takes_the_place_of_the_mentions() -> None:
    caption = MENTIONS.model_copy(update={"counterfactual": "ship"})
    assert caption.counterfactual_text() == "a ship by a ship, castles and a ship"
    assert caption.counterfactual_text("last") == "a castle by a Castle, castles and a ship"


def test_a_learned_token_of_several_vectors_is_refused_with_what_to_write() -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<my-toy>", "<my-toy>_1", "<my-toy>_2", "<one>"])
    written = "a photo of <my-toy> <my-toy>_1 <my-toy>_2 by <one>"
    assert len(tokenize(tokenizer, [written])) == 1
    with pytest.raises(PlanError, match="3 vectors: write '<my-toy> <my-toy>_1 <my-toy>_2'"):
        tokenize(tokenizer, ["a cat", "a photo of <my-toy> by the sea"])
    with pytest.raises(PlanError, match="3 vectors"):
        find_subject(tokenizer, Caption(caption="<my-toy>", subject="<my-toy>", attribute="object"))
    pipeline: Any = TextualInversionLoaderMixin()
    ours = tokenize(tokenizer, [written])
    theirs = pipeline.maybe_convert_prompt("a photo of <my-toy> by <one>", tokenizer)
    assert ours.tolist() == tokenize(tokenizer, [theirs]).tolist()


@pytest.mark.parametrize("text", ["a photo of a cat", "  İİİİ of a cat ", "İ a cat", "ǅ ẞ a cat"])
def test_a_letter_that_lower_case_lengthens_moves_no_subject(text: str) -> None:
    tokenizer = TemplateTokenizer(build_tokenizer(), before="draw: ", length=60)
    caption = Caption(caption=text, subject="cat", attribute="object")
    (ids_L,), (span,) = find_subjects(tokenizer, [caption])
    words = tokenizer.convert_ids_to_tokens(ids_L[span.start : span.stop].tolist())
    assert "".join(words).replace("</w>", "") == "cat"
