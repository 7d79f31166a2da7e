"""The matched control takes counterfactuals from a plan's own options, where the file has none."""

from typing import Any

from engine.model.families.flux2 import Flux2
from engine.model.tokens import find_subjects
from jobs.tracing.counterfactuals import Tokenized, fits
from jobs.tracing.plan import check_plan, make_plan
from schemas.caption import Caption
from tests.models.language_models import mistral_processor


def matched_of(captions: list[dict], **change: Any) -> dict[str, str | None]:
    """Return the counterfactual of each caption in the plan of a run with the matched control."""
    fields = {"interventions": ["restore", "matched"], "captions": captions}
    plan = check_plan(make_plan({**fields, **change})).plan
    return {caption.caption: caption.counterfactual for caption in plan.captions}


def caption_of(subject: str, text: str = "a photo of a {}", **more: str) -> dict:
    return {"caption": text.format(subject), "subject": subject, "attribute": "object", **more}


def test_the_matched_control_takes_another_subject_of_the_attribute() -> None:
    """Of emoji-sd's objects: one token each, so that any may take another's place."""
    objects = ["cow", "dog", "fox", "duck"]
    captions = [caption_of(name, "a photo of {} in the style of noto") for name in objects]
    style = {"caption": "a cow of noto", "subject": "noto", "attribute": "style"}
    found = matched_of([*captions, style])
    assert found.pop("a cow of noto") is None, "it is the only style"
    for name, other in zip(objects, found.values(), strict=True):
        assert other in set(objects) - {name}
    assert found == matched_of(captions[::-1])
    # Drawn among all that fit, not the first that does.
    many = [caption_of("cow", f"{{}} {n}") for n in range(20)]
    by_caption = matched_of([*many, *map(caption_of, ["dog", "fox"])])
    assert {by_caption[caption["caption"]] for caption in many} == {"dog", "fox"}


def test_what_a_file_gives_is_kept_and_articles_and_tokens_have_to_fit() -> None:
    cow, dog = caption_of("cow", counterfactual="fox"), caption_of("dog")
    owl = caption_of("owl", "a photo of an {}")
    found = matched_of([cow, dog, owl])
    assert found == {
        "a photo of a cow": "fox",
        "a photo of a dog": "cow",
        "a photo of an owl": None,
    }
    two = caption_of("hot dog", "a photo of a {}")
    assert matched_of([cow, two, dog])["a photo of a hot dog"] is None


def test_a_counterfactual_is_compared_from_the_texts_first_token_where_padding_is_in_front() -> (
    None
):
    tokenizer = Flux2().prepare_tokenizer(mistral_processor(), part="text_encoder", denoiser=None)
    captions = [
        Caption(**caption_of("x", "a photo of {} by the sea", counterfactual=other))
        for other in ("y", "yy")
    ]
    ids_NL, spans = find_subjects(tokenizer, captions)
    read = Tokenized(tokenizer=tokenizer, ids_NL=ids_NL, spans=spans)
    assert fits(dict(enumerate(captions)), [read], "last") == [True, False]


def test_a_plan_without_the_matched_control_has_no_counterfactuals() -> None:
    captions = [caption_of("cat"), caption_of("dog")]
    assert set(matched_of(captions, interventions=["restore"]).values()) == {None}
