"""Captions of the embedded models' scenes, and which of them training never sees."""

import zlib

import pytest
import torch

from engine.reference.latents import training_scenes
from engine.reference.prompt_sets import prompt_sets
from engine.reference.sampling import BROAD, CROWDED, Mix, related_scenes
from engine.reference.vocabulary import ALIKE, Scene, caption, plural, scenes


@pytest.mark.parametrize(
    ("scene", "said"),
    [
        (Scene("owl", "noto"), "an owl in the style of noto"),
        (Scene("unicorn", "neon", "orange"), "an orange unicorn in the style of neon"),
        (Scene("unicorn", "neon"), "a unicorn in the style of neon"),
        (
            Scene("bus", "neon", "red", "upside down", "two"),
            "two upside down red buses in the style of neon",
        ),
        (
            Scene("person", "sticker", count="three", action="running"),
            "three people running in the style of sticker",
        ),
        (
            Scene("cat", "stencil", "red", second="umbrella", second_color="natural"),
            "a red cat and an umbrella in the style of stencil",
        ),
    ],
)
def test_a_caption_says_all_of_a_scene(scene: Scene, said: str) -> None:
    assert caption(scene) == said


def test_a_caption_may_leave_things_out() -> None:
    red = Scene("person", "neon", "red", action="dancing")
    assert caption(red, with_style=False) == "a red person dancing"
    assert caption(red, with_style=False, with_action=False) == "a red person"
    assert caption(red, noun="object", with_style=False, one="one") == "one red object"
    assert caption(Scene("cat", "neon"), noun="something", opening="a photo of") == (
        "a photo of something in the style of neon"
    )
    assert (
        caption(Scene("cat", "noto", count="two"), noun="thing", with_style=False) == "two things"
    )


@pytest.mark.parametrize(
    ("one", "several"),
    [("wine glass", "wine glasses"), ("butterfly", "butterflies"), ("monkey", "monkeys"),
     ("fox", "foxes"), ("person", "people"), ("snowman", "snowmen")],
)  # fmt: skip
def test_plurals_are_spelled_as_in_english(one: str, several: str) -> None:
    assert plural(one) == several


@pytest.mark.parametrize("mix", [BROAD, CROWDED])
def test_training_sees_no_held_out_caption_and_no_unseen_pair(mix: Mix) -> None:
    """Hashes are taken here of the words that a user reads, not by the code under test."""
    rng = torch.Generator().manual_seed(5)
    for scene in related_scenes(400, group=4, mix=mix, rng=rng):
        said = ((scene.color, scene.object), (scene.second_color, scene.second))
        assert all(
            color == "natural" or zlib.crc32(f"{color} {name}".encode()) % 100 >= 5
            for color, name in said
        )
        assert zlib.crc32(caption(scene).encode()) % 100 >= 15


def test_half_of_a_groups_pairs_share_one_object_only_where_the_mix_swaps() -> None:
    for mix, distinct in ((BROAD, 1), (CROWDED, 3)):
        drawn = related_scenes(400, group=4, mix=mix, rng=torch.Generator().manual_seed(5))
        groups = [drawn[row : row + 4] for row in range(0, 400, 4)]
        pairs = [[{s.object, s.second} for s in group] for group in groups if group[0].second]
        assert len(pairs) > 10
        assert all(set.intersection(*group) for group in pairs)
        assert max(len({frozenset(pair) for pair in group}) for group in pairs) == distinct


def test_evaluation_asks_only_what_training_did_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.reference.latents.PAIRS", 300)
    seen = {caption(scene) for scene in training_scenes()}
    sets = prompt_sets(fraction=0.25)
    asked = [*sets.one_object, *sets.unseen_pairs, *sets.two_objects]
    assert not seen & {caption(scene) for scene in asked}
    assert len(prompt_sets().one_object) >= 600
    assert all(scene.has_unseen_pair for scene in sets.unseen_pairs)
    assert not any(scene.has_unseen_pair for scene in (*sets.one_object, *sets.two_objects))


def test_drawings_that_look_alike_are_never_upside_down() -> None:
    turned = {scene.object for scene in scenes() if scene.viewpoint == "upside down"}
    assert not turned & ALIKE
    assert len(turned) + len(ALIKE) == 73
