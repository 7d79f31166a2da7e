"""A model's own words come with its folder, from anyone: taken as they should be, or refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.model.vocabulary import COMPOUNDS, read_phrasebook
from schemas.concept import ConceptKind
from schemas.errors import ModelUnavailable

WORDS: dict[str, Any] = {"objects": ["cat", "dog"], "styles": ["noto"], "colors": ["red"]}


def written(folder: Path, **changes: object) -> Path:
    (folder / "vocabulary.json").write_text(json.dumps({**WORDS, **changes}))
    return folder


def test_words_are_taken_without_blanks_around_them(tmp_path: Path) -> None:
    assert read_phrasebook(written(tmp_path, objects=[" cat ", "dog"])).objects == ("cat", "dog")


def test_a_model_without_words_has_the_general_ones(tmp_path: Path) -> None:
    book = read_phrasebook(tmp_path)
    assert book.compounds == COMPOUNDS
    assert book.neutral == set(ConceptKind)


def test_a_model_knows_the_general_words_that_it_lists(tmp_path: Path) -> None:
    assert read_phrasebook(written(tmp_path)).neutral == set()
    book = read_phrasebook(written(tmp_path, generic=["thing", "object"], actions=["standing"]))
    assert book.neutral == {ConceptKind.OBJECT, ConceptKind.ACTION}
    assert read_phrasebook(written(tmp_path, generic=["thing"])).neutral == set()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objects": ["cat", " "]}, "objects.1: holds no letter"),
        ({"colors": [""]}, "colors.0: holds no letter"),
        ({"styles": ["a {} style"]}, "the place of a name"),
        ({"objects": ["cat", "caf\u00e9", "cafe\u0301"]}, "is listed twice"),
        ({"objects": ["ca\x1bt"]}, "control character"),
        ({"objects": ["x" * 5000]}, "at most 120 characters"),
        ({"styles": [f"s{n}" for n in range(10_000)]}, "at most 200 items"),
        ({"objects": []}, "at least 1 item"),
    ],
)
def test_odd_words_are_one_sentence(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelUnavailable, match=said) as refusal:
        read_phrasebook(written(tmp_path, **changes))
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "dangling"])
def test_what_is_no_regular_file_is_not_taken_for_no_words(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "vocabulary.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else tmp_path / "none")
    with pytest.raises(ModelUnavailable, match=r"vocabulary\.json"):
        read_phrasebook(tmp_path)
