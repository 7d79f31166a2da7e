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
