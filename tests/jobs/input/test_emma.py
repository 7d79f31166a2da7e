"""A checkout of EMMA in miniature, with prompts made up in its form."""

import json
from pathlib import Path

import pytest

from jobs.input.emma import read_emma
from schemas.concept import Concept, ConceptKind
from schemas.errors import ConceptError

BAT = Concept(concept="baseball bat", replacement="fork")
MONET = Concept(concept="Claude Monet", kind=ConceptKind.STYLE)
OTHER = Concept(concept="windmill")


def checkout(folder: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = folder / "prompts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def test_prompts_of_edited_concepts_are_read_by_domain_and_file(tmp_path: Path) -> None:
    folder = checkout(
        tmp_path,
        {
            "object/4_short.json": [{"baseballbat": ["wood that hits a ball"]}, {"cat": ["fur"]}],
            "object/1_name.json": [{"cat": ["a cat"], "baseballbat": ["the baseball bat"]}],
            "object/6_random.json": [{"baseballbat": ["a spoon"]}],
            "object/5_long.json": [{"baseballbat": ["wood that hits a ball"]}],
            "art/1_name.json": {"claude-monet": ["a pond by Claude Monet"]},
            "celebrity/1_name.json": [{"claude-monet": ["a portrait of Claude Monet"]}],
        },
    )
    assert read_emma(folder, [BAT, MONET, OTHER]) == (
        ("a pond by Claude Monet", MONET),
        ("the baseball bat", BAT),
        ("wood that hits a ball", BAT),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([["baseballbat"]], r"1_name.json, entry 1: not a mapping"),
        ([{"cat": []}, {"baseballbat": "a bat"}], r"1_name.json, 'baseballbat': not a list"),
        ([{"baseballbat": ["a bat", 7]}], r"1_name.json, 'baseballbat': prompt: "),
        ([{"cat": ["a cat"]}], "no prompt of a concept that is edited"),
    ],
)
def test_what_is_not_emmas_form_is_named(content: object, message: str, tmp_path: Path) -> None:
    folder = checkout(tmp_path, {"object/1_name.json": content})
    with pytest.raises(ConceptError, match=message):
        read_emma(folder, [BAT])


def test_another_folder_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(ConceptError, match="not a checkout of EMMA"):
        read_emma(tmp_path, [BAT])
