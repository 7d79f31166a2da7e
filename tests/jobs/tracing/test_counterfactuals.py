"""The matched control takes counterfactuals from a plan's own options, where the file has none."""

from typing import Any

from jobs.tracing.plan import check_plan, make_plan


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


def test_a_plan_without_the_matched_control_has_no_counterfactuals() -> None:
    captions = [caption_of("cat"), caption_of("dog")]
    assert set(matched_of(captions, interventions=["restore"]).values()) == {None}
