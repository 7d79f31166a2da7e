"""The page about the architecture against the tree: folders, floors and the files that it names."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGES = ("dqf", "cli", "schemas", "engine", "jobs", "bench")
FILE = re.compile(r"`((?:dqf|cli|schemas|engine|jobs|bench|docs|tests)/[\w/.-]+\.\w+)`")


def section(title: str) -> str:
    """Return the text of a section of the page."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def code_folders() -> set[str]:
    """Return the folders of the packages that hold code or what code reads, but no weights."""
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*")]
    folders = {
        file.relative_to(ROOT).parent.as_posix()
        for file in files
        if file.is_file() and file.name != "__init__.py" and file.parent.name != "__pycache__"
    }
    return {f"{folder}/" for folder in folders if "emoji" not in folder}


def test_every_folder_has_one_row_and_no_row_is_left_over() -> None:
    rows = re.findall(r"^\| `([\w/]+/)` \|", section("The folders"), flags=re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == code_folders()


@pytest.mark.parametrize("package", ["jobs", "engine"])
def test_the_picture_shows_the_floors_that_import_linter_holds(package: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (c["layers"] for c in contracts["contracts"] if c.get("containers") == [package])
    picture = section("The floors").split("```text\n")[1].split("```")[0]
    drawn = re.search(rf"^{package} +(.+(?:\n +.+)*)", picture, flags=re.MULTILINE)
    assert drawn is not None
    assert [line.strip() for line in drawn[1].split("\n")] == layers


def test_every_file_that_the_page_names_is_there() -> None:
    names = FILE.findall(PAGE)
    assert len(names) > 40
    assert [name for name in names if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("what", ["caption", "concept"])
def test_a_walk_through_the_code_is_a_dozen_lines(what: str) -> None:
    steps = re.split(r"\n(?=\d+\. )", section(f"One {what} followed through the code").strip())
    assert 8 <= len(steps) <= 13
    for number, step in enumerate(steps, start=1):
        assert step.startswith(f"{number}. ")
        assert FILE.search(step), step
