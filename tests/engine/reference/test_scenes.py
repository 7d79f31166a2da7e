"""Scenes drawn from made-up sprites: how many, where, which color, which way up."""

import pytest
import torch

from engine.reference.latents import Latents, draw, entry_weights, kind_of, training_scenes
from engine.reference.sampling import BROAD, CROWDED, Mix
from engine.reference.scenes import FIXED, compose
from engine.reference.sprites import CANVAS, ground_color, mirror_difference, sprite
from engine.reference.vocabulary import COLORS, STYLES, Scene, drawings
from engine.reference.wordings import Wording, attributes, matches, random_wording


@pytest.fixture(scope="module")
def sprites() -> torch.Tensor:
    """Return for every drawing a square in the upper half, its red the color's row."""
    shape = (len(list(drawings())), len(STYLES), len(COLORS), 4, CANVAS, CANVAS)
    colored = torch.zeros(len(COLORS), 4, CANVAS, CANVAS, dtype=torch.uint8)
    box = (slice(CANVAS // 8, CANVAS // 2), slice(CANVAS // 4, 3 * CANVAS // 4))
    for row in range(len(COLORS)):
        colored[row, 0, *box] = 30 * row
        colored[row, 3, *box] = 255
    return colored.expand(shape)


def drawn(sprites: torch.Tensor, scene: Scene) -> torch.Tensor:
    """Return where a scene's image is not its ground, `(H, W)` of bool."""
    image_CHW = compose(sprites, [scene], torch.tensor(FIXED[:1]))[0]
    ground_C11 = ground_color(scene.style) * 2 - 1
    return ((image_CHW - ground_C11).abs() > 0.2).any(0)


def regions(mask_HW: torch.Tensor) -> int:
    """Return the number of connected regions, by flooding."""
    left, found = {(int(y), int(x)) for y, x in mask_HW.nonzero()}, 0
    while left:
        found, edge = found + 1, [left.pop()]
        while edge:
            y, x = edge.pop()
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= near
            edge += near
    return found


@pytest.mark.parametrize(("count", "number"), [("one", 1), ("two", 2), ("three", 3)])
@pytest.mark.parametrize("style", ["noto", "neon"])
def test_a_count_is_drawn_as_so_many(
    sprites: torch.Tensor, count: str, number: int, style: str
) -> None:
    assert regions(drawn(sprites, Scene("cat", style, count=count))) == number


@pytest.mark.parametrize("count", ["one", "two"])
def test_upside_down_is_mirrored_top_to_bottom(sprites: torch.Tensor, count: str) -> None:
    upright, turned = (
        drawn(sprites, Scene("dog", "noto", viewpoint=v, count=count))
        for v in ("upright", "upside down")
    )
    assert torch.equal(upright.flip(0), turned)
    assert not torch.equal(upright, turned)


def test_two_objects_stand_in_the_order_they_are_said_each_in_its_color(
    sprites: torch.Tensor,
) -> None:
    scene = Scene("cat", "noto", "red", second="dog", second_color="purple")
    image_CHW = compose(sprites, [scene], torch.tensor(FIXED[:1]))[0]
    mask_HW = drawn(sprites, scene)
    left, right = (
        float(image_CHW[0][:, half][mask_HW[:, half]].median())
        for half in (slice(0, 32), slice(32, 64))
    )
    rows = list(COLORS)
    assert left == pytest.approx(30 * rows.index("red") / 127.5 - 1, abs=0.02)
    assert right == pytest.approx(30 * rows.index("purple") / 127.5 - 1, abs=0.02)


def test_a_batch_draws_each_scene_as_it_is_drawn_alone(sprites: torch.Tensor) -> None:
    listed = [
        Scene("cat", "neon", "red", count="three"),
        Scene("dog", "noto", "blue"),
        Scene("fox", "sticker", "green", second="cow"),
    ]
    placement_N3 = torch.tensor(FIXED)
    together = compose(sprites, listed, placement_N3)
    for row, scene in enumerate(listed):
        alone = compose(sprites, [scene], placement_N3[row : row + 1])[0]
        torch.testing.assert_close(together[row], alone)


def test_a_flat_sprite_takes_the_color_and_a_sticker_grows() -> None:
    rgba_CHW = torch.zeros(4, CANVAS, CANVAS)
    rgba_CHW[:, 40:90, 40:90] = 0.5
    rgba_CHW[3, 40:90, 40:90] = 1
    blue = sprite(rgba_CHW, style="stencil", color="blue")
    torch.testing.assert_close(blue[:3, 60, 60], torch.tensor(COLORS["blue"]))
    outlined = sprite(rgba_CHW, style="sticker", color="natural")
    assert outlined[3].sum() > 1.3 * rgba_CHW[3].sum()


def test_a_symmetric_sprite_does_not_differ_from_its_mirror_image() -> None:
    rgba_CHW = torch.zeros(4, CANVAS, CANVAS)
    rgba_CHW[:, 20:108, 30:90] = 1
    assert mirror_difference(rgba_CHW, style="neon") == pytest.approx(0)
    rgba_CHW[:3, 20:64] = 0
    assert mirror_difference(rgba_CHW, style="neon") > 0.5


def test_a_caption_is_right_where_all_that_it_says_is() -> None:
    red, blue = Scene("cat", "noto", "red"), Scene("cat", "neon", "blue")
    other, pair = Scene("dog", "noto", "red"), Scene("cat", "noto", "red", second="dog")
    wordings = [
        Wording(text="a red cat in the style of noto"),
        Wording(text="a blue cat", unsaid=("style",)),
        Wording(text="a red object in the style of noto", unsaid=("object", "action")),
        Wording(text="a red cat and a dog in the style of noto"),
    ]
    expected = [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert matches(attributes([red, blue, other, pair]), wordings).tolist() == expected


def test_a_wording_names_what_it_leaves_out() -> None:
    rng = torch.Generator().manual_seed(7)
    scene = Scene("person", "neon", "red", count="two", action="running")
    found = [random_wording(scene, rng) for _ in range(300)]
    for wording in found:
        assert ("neon" in wording.text) == ("style" not in wording.unsaid)
        assert ("people" in wording.text) == ("object" not in wording.unsaid)
        assert ("running" in wording.text) == ("action" not in wording.unsaid)
    assert {name for wording in found for name in wording.unsaid} == {"style", "object", "action"}


@pytest.mark.parametrize("mix", [BROAD, CROWDED])
def test_kinds_of_scenes_are_drawn_by_their_shares(
    monkeypatch: pytest.MonkeyPatch, mix: Mix
) -> None:
    monkeypatch.setattr("engine.reference.latents.PAIRS", 200)
    listed = training_scenes()
    owner_M = torch.arange(len(listed))
    data = Latents(
        scenes=listed,
        latent_MCHW=owner_M[:, None, None, None].float(),
        owner_M=owner_M,
        scale=1.0,
    )
    rows, texts = draw(data, entry_weights(data, mix), 4000, rng=torch.Generator().manual_seed(3))
    kinds = [kind_of(listed[int(row)]) for row in rows.flatten()]
    for kind, share in mix.kinds.items():
        assert kinds.count(kind) / 4000 == pytest.approx(share, abs=0.03)
    assert texts.count("") / 4000 == pytest.approx(0.1, abs=0.02)
