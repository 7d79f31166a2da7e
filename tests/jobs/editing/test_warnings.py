"""Doubts about an edit that are said before it is solved."""

from pathlib import Path

import pytest

from engine.model.model import Diffusion
from engine.model.opening import open_model
from engine.model.registry import EMOJI_SD
from engine.model.vocabulary import Phrasebook, read_phrasebook
from jobs.editing.plan import EditPlan
from jobs.editing.request import describe
from jobs.editing.warnings import inside_others, near_keys, unknown
from schemas.concept import Concept
from schemas.manifest import EditSite
from schemas.numerics import Numerics

MLP = "text_encoder.layers.0.mlp"
BOOK = Phrasebook(objects=("hot dog", "dog", "cat", "teddy bear"), styles=())


@pytest.mark.parametrize(
    ("concepts", "said"),
    [
        ([Concept(concept="dog", replacement="cat")], ["'dog' is inside 'hot dog', which is kept"]),
        (
            [Concept(concept="dog"), Concept(concept="hot dog")],
            ["'dog' is inside 'hot dog', and both are edited"],
        ),
        (
            [Concept(concept="bear"), Concept(concept="cat", replacement="polar bear")],
            [
                "the replacement 'polar bear' of 'cat' says 'bear'",
                "'bear' is inside 'teddy bear', which is kept",
            ],
        ),
        ([Concept(concept="hot dog"), Concept(concept="cat")], []),
    ],
)
def test_names_inside_others_are_named(concepts: list[Concept], said: list[str]) -> None:
    found = list(inside_others(concepts, book=BOOK))
    assert len(found) == len(said)
    assert sorted(f.startswith(s) for f, s in zip(sorted(found), sorted(said), strict=True)) == [
        True
    ] * len(said)


@pytest.fixture(scope="module")
def emoji() -> Diffusion:
    return open_model("emoji-sd", device="cpu")


def test_concepts_with_nearly_the_same_keys_are_named(emoji: Diffusion) -> None:
    book = read_phrasebook(EMOJI_SD)
    # The tokenizer lowers words, so that these are the same tokens exactly.
    same = [Concept(concept="cat", replacement="owl"), Concept(concept="CAT", replacement="bus")]
    (found,) = near_keys(emoji, same, MLP, book=book)
    assert "'cat' and 'CAT' have nearly the same keys" in found
    alike = [c.model_copy(update={"replacement": "owl"}) for c in same]
    assert not list(near_keys(emoji, alike, MLP, book=book))
    initials = [
        Concept(concept="mr j smith", replacement="owl"),
        Concept(concept="mr k smith", replacement="bus"),
    ]
    (found,) = near_keys(emoji, initials, MLP, book=book)
    assert "'mr j smith' and 'mr k smith'" in found
    apart = [Concept(concept=n) for n in ("cat", "guitar", "house")]
    apart = [c.model_copy(update={"replacement": r}) for c, r in zip(apart, "abc", strict=True)]
    assert not list(near_keys(emoji, apart, MLP, book=book))


def test_words_that_the_model_does_not_know_are_named(emoji: Diffusion, tmp_path: Path) -> None:
    plan = EditPlan(
        concepts=(
            Concept(concept="cat", replacement="xylograph"),
            Concept(concept="zeitgeist", replacement="dog"),
        ),
        model="emoji-sd",
        located=EditSite(component=MLP),
        out=tmp_path,
        numerics=Numerics(steps=8, guidance=3.0),
        scorer="builtin:emoji-sd",
        images=2,
    )
    found = list(unknown(emoji, plan, book=read_phrasebook(EMOJI_SD)))
    assert any("the replacement 'xylograph'" in line for line in found)
    assert any("the concept 'zeitgeist'" in line for line in found)
    assert not any("'cat' is in none" in line or "'dog' is in none" in line for line in found)


def test_every_edited_component_is_named() -> None:
    site = EditSite(component=MLP)
    assert describe(site, (MLP, "text_encoder.layers.1.mlp")) == (
        f"editing {MLP}, text_encoder.layers.1.mlp, which no run has ranked"
    )
