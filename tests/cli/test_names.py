"""Edits go by name or path, as runs do, and a word that is no command says which one is meant."""

from contextlib import chdir
from pathlib import Path

import pytest

from cli.options.edits import edit_folder
from cli.options.home import HOME
from cli.options.runs import named_locations
from schemas.errors import QueryRefused
from tests.cli.test_commands import dqf


def test_an_edit_goes_by_name_or_path(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with chdir(tmp_path):
        assert edit_folder("demo") == Path("edits/demo")
        assert edit_folder("a/demo") == Path("a/demo")
        assert edit_folder("mine") == Path("mine")


def test_a_name_in_sql_is_one_before_an_equals_sign() -> None:
    assert named_locations(["a=runs/x", "runs/y"]) == {"a": "runs/x", "y": "runs/y"}
    for given in ("=demo", "=", "=a=b"):
        with pytest.raises(QueryRefused, match="has no name before the `=`"):
            named_locations([given])


@pytest.mark.parametrize(
    "command",
    [
        ("edit", "list", "demo"), ("edit", "results", "demo"), ("edit", "evaluate", "demo"),
        ("edit", "attack", "demo"), ("edit", "diff", "demo", "demo"),
        ("generate", "a cat", "--edit", "demo"),
    ],
)  # fmt: skip
def test_every_command_looks_for_an_edit_in_edits(command: tuple[str, ...], tmp_path: Path) -> None:
    done = dqf(*command, cwd=tmp_path)
    assert done.returncode == 2
    assert "edits/demo" in done.stderr


def test_a_wrong_choice_is_said_in_plain_words() -> None:
    said = " ".join(dqf("rank", "demo", "--show", "tables").stderr.replace("│", " ").split())
    assert "Invalid value for '--show': 'tables' is not one of 'states'" in said


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("status", "dqf trace status"), ("ls", "dqf trace list"), ("help", "dqf --help"),
        ("list", "dqf trace list' or 'dqf edit list"), ("attack", "dqf edit attack"),
        ("rnak", "rank"), ("edit show", "dqf edit list"), ("edit atack", "attack"),
        ("trace ls", "dqf trace list"), ("models list", "dqf models"),
        ("models sdxl", "dqf components sdxl"),
    ],
)  # fmt: skip
def test_the_command_that_is_meant_is_named(word: str, meant: str) -> None:
    done = dqf(*word.split(), "demo")
    assert done.returncode == 2
    said = " ".join(done.stderr.replace("│", " ").split())
    assert f"Did you mean '{meant}'?" in said


def test_the_run_or_edit_that_is_meant_is_named(tmp_path: Path) -> None:
    for file in ("runs/demo/plan.json", "runs/demmo/other", "edits/cats/edit.json"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("{}")
    said = dqf("rank", "dmeo", cwd=tmp_path).stderr
    assert said.startswith("dqf: no run at runs/dmeo, did you mean demo: `dqf trace submit")
    said = dqf("edit", "list", "cat", cwd=tmp_path).stderr
    assert said.startswith("dqf: no edit at edits/cat, did you mean cats: give")
    assert "did you mean" not in dqf("rank", "nothing", cwd=tmp_path).stderr


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("rank demo --attribute object --top 3 --attribute style", "--attribute"),
        ("rank demo --known target:0.1 --known caption:0.2", "--known"),
        ("trace plan --steps 2 --num-inference-steps=3", "--num-inference-steps"),
        ("plot demo --figure ranking --out a.png --top 1 --top 2", "--top"),
    ],
)
def test_an_option_of_one_value_is_given_once(command: str, option: str, tmp_path: Path) -> None:
    done = dqf(*command.split(), cwd=tmp_path)
    assert done.returncode == 2
    said = " ".join(done.stderr.replace("│", " ").split())
    assert "is given 2 times: give it once" in said
    assert option in said


def test_an_option_that_may_be_repeated_and_a_switch_are_taken_twice(tmp_path: Path) -> None:
    plot = "plot demo --figure ranking --out a.png --out b.png --attribute a --attribute b"
    for command in (plot, "doctor demo -q -q"):
        assert "no run at runs/demo" in dqf(*command.split(), cwd=tmp_path).stderr


@pytest.mark.parametrize(
    "command",
    [
        ("report", "demo", "--out", ""), ("report", "demo", "--edit", "a", "--edit", ""),
        ("edit-batch", "", "--out", "a"), ("export", "demo", ""), ("trace", "list", ""),
        ("edit", "evaluate", ""), ("generate", "a cat", "--edit="),
    ],
)  # fmt: skip
def test_an_empty_path_is_not_the_working_directory(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    done = dqf(*command, cwd=tmp_path)
    assert done.returncode == 2
    assert "is empty: give a path" in done.stderr


@pytest.mark.parametrize("option", ["--address", "--scorer", "--probe", "--component"])
def test_an_empty_name_is_not_taken_for_none(option: str, tmp_path: Path) -> None:
    done = dqf("trace", "submit", "--run", "r", option, "", cwd=tmp_path)
    assert done.returncode == 2
    assert f"'{option}'" in done.stderr
    assert "is empty: give a" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command", [("trace", "list"), ("rank", "demo"), ("report", "--all"), ("edit", "list", "demo")]
)
def test_a_home_in_a_bucket_is_refused(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME, "s3://bucket/runs")
    done = dqf(*command)
    assert done.returncode == 2
    assert done.stderr == (
        "dqf: DQF_HOME is a folder, not s3://bucket/runs: give a run in a bucket by its own URL\n"
    )
