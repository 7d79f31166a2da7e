"""Which names a text says: whole words, of overlapping names the longest, whatever their order."""

import unicodedata

import pytest

from engine.editing.names import KnownNames

NAMES = ("dog", "hot dog", "Monet", "bear", "teddy bear", "a watercolor", "red panda", "t-shirt")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a photo of a dog", ["dog"]),
        ("A HOT DOG, on a table", ["hot dog"]),
        ("a dog and a hot dog", ["dog", "hot dog"]),
        ("hot dogs by dogs", ["hot dog", "dog"]),
        ("a garden in Monet's style", ["Monet"]),
        ("a dogma, a hotdog", []),
        ("a hot, dog", ["dog"]),
        ("a teddy bear in a t-shirt", ["teddy bear", "t-shirt"]),
        ("a bear in a watercolor", ["bear", "a watercolor"]),
        ("", []),
    ],
)
@pytest.mark.parametrize("names", [NAMES, NAMES[::-1]])
def test_the_longest_known_name_wins(names: tuple[str, ...], text: str, said: list[str]) -> None:
    assert [mention.name for mention in KnownNames(names).said(text)] == said


def test_a_mention_knows_its_characters() -> None:
    text = "two  Hot   Dogs!"
    (mention,) = KnownNames(NAMES).said(text)
    assert text[mention.start : mention.stop] == "Hot   Dogs"


def test_composed_and_decomposed_accents_are_one_name() -> None:
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    for name, said in ((composed, decomposed), (decomposed, composed)):
        assert [m.name for m in KnownNames([name]).said(f"a {said.upper()} here")] == [name]
    assert KnownNames(["cafe"]).said(f"a {decomposed}") == []
    assert KnownNames(["stra\u00dfe"]).said("a strasse") == []


def test_a_longer_name_that_crosses_wins_over_the_first() -> None:
    names = KnownNames(["big red", "red panda bear"])
    assert [m.name for m in names.said("a big red panda bear")] == ["red panda bear"]


def test_names_inside_a_longer_one_are_found() -> None:
    known = KnownNames(NAMES)
    assert list(known.within("hot dog")) == ["dog"]
    assert list(known.within("dog")) == []
    assert "Hot Dog" in known
    assert "cat" not in known


def test_without_names_nothing_is_said() -> None:
    assert KnownNames([]).said("a dog") == []
