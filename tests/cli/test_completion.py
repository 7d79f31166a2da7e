"""The shell completes runs, edits, models, attributes and views, under DQF_HOME too."""

from contextlib import chdir
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.options.edits import edit_folder
from cli.options.home import HOME
from cli.options.runs import run_location
from tests.made_up.small_run import make_run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder with two runs, an edit and folders that are neither."""
    for name in ("art", "art-2"):
        make_run(tmp_path / "runs" / name)
    (tmp_path / "runs" / "artless").mkdir()
    for name in ("cats", "dogs"):
        (tmp_path / "edits" / name).mkdir(parents=True)
        (tmp_path / "edits" / name / "edit.json").write_text("{}")
    (tmp_path / "edits" / "caterpillar").mkdir()
    return tmp_path


def completed(line: str) -> set[str]:
    """Return what bash is given to complete a line."""
    words = line.split(" ")
    environment = {
        "_DQF_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = CliRunner().invoke(app, [], prog_name="dqf", env=environment)
    return set(done.output.split())


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("dqf rank a", {"art", "art-2"}),
        ("dqf trace resume art-", {"art-2"}),
        ("dqf query a", {"art", "art-2"}),
        ("dqf query --schema cau", {"causal_states"}),
        ("dqf edit list c", {"cats"}),
        ("dqf generate --edit d", {"dogs"}),
        ("dqf components sd-2", {"sd-2.1"}),
        ("dqf trace submit --model emo", {"emoji-sd", "emoji-dit"}),
        ("dqf rank art --attribute s", {"style"}),
        ("dqf plot art --attribute o", {"object"}),
        ("dqf rank nothing --attribute s", set()),
    ],
)
def test_names_are_completed(
    home: Path, line: str, names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME, str(home))
    assert completed(line) == names
    monkeypatch.delenv(HOME)
    with chdir(home):
        assert completed(line) == names


def test_names_lie_in_dqf_home_and_paths_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(HOME, "/elsewhere")
    assert run_location("art") == "/elsewhere/runs/art"
    assert edit_folder("cats") == Path("/elsewhere/edits/cats")
    assert run_location("./art") == "./art"
    assert run_location("s3://b/art") == "s3://b/art"
    assert edit_folder("a/cats") == Path("a/cats")
    monkeypatch.setenv(HOME, "")
    assert run_location("art") == "runs/art"
