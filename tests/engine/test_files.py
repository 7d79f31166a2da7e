"""Folders for output: what cannot be made is refused before work, and says why."""

import os
from pathlib import Path

import pytest

from engine.files import new_folder, refuse_occupied
from schemas.errors import ConceptError


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "file", "file/below", "file/far/below", "dangling", "dangling/below", "loop", "loop/below",
        "pipe", "pipe/below", "x" * 256, "new/" + "é" * 128, "/proc/new/edit", "/dev/null",
        "/dev/null/edit", "with\0null", ".",
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_made_is_refused(name: str, work: Path) -> None:
    before = sorted(os.listdir(work))
    with pytest.raises(ConceptError, match="choose another --out"):
        refuse_occupied(work / name)
    assert sorted(os.listdir(work)) == before


@pytest.mark.parametrize("name", ["new", "a/b/c", "é" * 127, "empty", "there/."])
def test_what_can_be_made_is_made_with_its_files(name: str, work: Path) -> None:
    (work / "empty").mkdir()
    (work / "there").mkdir()
    refuse_occupied(work / name)
    with new_folder(work / name) as made:
        (made / "inside").write_text("whole")
    assert (work / name / "inside").read_text() == "whole"
    assert not [path.name for path in work.rglob(".*")]


def test_this_folder_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with new_folder(Path()) as made:
        (made / "inside").write_text("whole")
    assert (tmp_path / "inside").read_text() == "whole"


def test_a_folder_with_the_named_file_is_replaced_whole(work: Path) -> None:
    old = work / "old"
    (old / "evaluation").mkdir(parents=True)
    (old / "edit.json").write_text("old")
    with pytest.raises(ConceptError, match="not an empty folder"), new_folder(old):
        pass
    with new_folder(old, replacing="edit.json") as made:
        (made / "inside").write_text("new")
        assert (old / "edit.json").read_text() == "old"
    assert [path.name for path in old.iterdir()] == ["inside"]
    assert not [path.name for path in work.rglob(".*")]


def test_what_fails_replaces_nothing(work: Path) -> None:
    old = work / "old"
    old.mkdir()
    (old / "edit.json").write_text("old")

    def fail() -> None:
        with new_folder(old, replacing="edit.json"):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        fail()
    assert (old / "edit.json").read_text() == "old"
    assert not [path.name for path in work.rglob(".*")]


@pytest.mark.parametrize("name", ["other", "link", "file"])
def test_other_folders_and_links_are_not_replaced(name: str, work: Path) -> None:
    (work / "other").mkdir()
    (work / "other" / "mine.txt").write_text("mine")
    (work / "real").mkdir()
    (work / "real" / "edit.json").write_text("old")
    (work / "link").symlink_to(work / "real")
    with (
        pytest.raises(ConceptError, match=r"holds no edit.json; choose another --out"),
        new_folder(work / name, replacing="edit.json"),
    ):
        pass
    assert (work / "real" / "edit.json").read_text() == "old"
    assert (work / "other" / "mine.txt").read_text() == "mine"
