"""Edits with one thing changed, and the commands that read them."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.concept import Concept
from tests.cli.test_edit import FIRST, make_edit
from tests.fuzzing.changes import CHANGES, Change, apply, fresh
from tests.fuzzing.running import check_ends_in_order
from tests.fuzzing.settings import LONG, QUICK

QUICK_COMMANDS = (
    ("edit", "list", "e"),
    ("edit", "list", "e", "--matrices"),
    ("edit", "diff", "e", "other"),
    ("generate", "--edit", "e", "--steps", "1", "--out", "grid.png", "a cat"),
)
COMMANDS = (
    *QUICK_COMMANDS,
    ("edit", "remove", "e", "cat", "--out", "new", "--images", "0"),
    ("edit", "add", "e", "more.csv", "--out", "new", "--images", "0"),
    ("edit", "results", "e"),
)


@pytest.fixture(scope="module")
def whole(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two edits of a tiny model."""
    work = tmp_path_factory.mktemp("whole")
    concepts = [
        Concept(concept="cat", replacement="dog", prompts=("a {}",)),
        Concept(concept="boat", weight=2, prompts=("a {}",)),
    ]
    make_edit(work / "e", tiny_sd, concepts=concepts, sizes={FIRST: 1.0})
    shutil.copytree(work / "e", work / "other")
    (work / "more.csv").write_text("concept,replacement,prompts\nship,plane,a {}\n")
    return work


def check(whole: Path, folder: Path, change: Change, command: Sequence[str]) -> None:
    """Apply a change to a copy of an edit and check how a command ends."""
    work = fresh(whole, folder)
    apply(change, work / "e", outside=folder / "outside")
    check_ends_in_order(command, folder=folder)


@pytest.mark.parametrize("command", QUICK_COMMANDS)
def test_a_whole_edit_is_read(command: tuple[str, ...], whole: Path, tmp_path: Path) -> None:
    fresh(whole, tmp_path)
    said = check_ends_in_order(command, folder=tmp_path)
    assert not said.startswith(("dqf:", "Usage"))


@given(change=CHANGES, command=st.sampled_from(QUICK_COMMANDS))
@QUICK
def test_a_changed_edit_is_read_or_refused(
    change: Change, command: Sequence[str], whole: Path, tmp_path: Path, until: float
) -> None:
    if time.monotonic() < until:
        check(whole, tmp_path, change, command)


@pytest.mark.slow
@given(change=CHANGES, command=st.sampled_from(COMMANDS))
@LONG
def test_many_changed_edits_are_read_or_refused(
    change: Change, command: Sequence[str], whole: Path, tmp_path: Path, until_late: float
) -> None:
    if time.monotonic() < until_late:
        check(whole, tmp_path, change, command)
