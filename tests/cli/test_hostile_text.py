"""What a user types, or a file holds, is text first: never a path that raises, never an escape."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.files import is_file, is_folder
from jobs.cluster.token import check_token
from schemas.errors import ClusterUnavailable
from schemas.printable import message, printable, shown
from tests.cli.test_commands import dqf
from tests.docs.shown import ROOT, blocks
from tests.made_up.small_run import commit_scores, make_run

HUGE = "x" * 5000
SQL = [text for language, text in blocks(ROOT / "docs/sql.md") if language == "sql"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    for name in ("r", "other"):
        run = make_run(folder / "runs" / name)
        for chunk in range(run.num_chunks):
            commit_scores(run, chunk)
    return folder


def refusal(*arguments: str, cwd: Path) -> str:
    """Return the one sentence with which a command refuses its arguments."""
    done = dqf(*arguments, cwd=cwd)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    last = done.stderr.rstrip().splitlines()[-1]
    assert len(last) < 1000
    return last


def test_a_statement_of_any_length_is_a_statement(work: Path) -> None:
    long = [text for text in SQL if len(text) > 255]
    assert len(long) >= 4
    for text in [*long, f"SELECT '{'/' * 300}' AS text", f"SELECT '{HUGE}' AS text -- a/b"]:
        done = dqf("query", "r", "other", text, cwd=work)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", [HUGE, f"a/{HUGE}", "a/" * 3000, f"{HUGE}=none", "\udcff\udcfe/x"])
@pytest.mark.parametrize(
    "command",
    [
        ("rank",),
        ("query",),
        ("report",),
        ("doctor",),
        ("trace", "status"),
        ("trace", "logs"),
        ("plot", "--figure", "ranking", "--out", "a.png"),
        ("query", "r", "SELECT 1", "--out"),
        ("edit-batch", "--out", "o"),
        ("generate", "cat", "--out", "cat.png", "--model"),
        ("generate", "cat", "--out", "cat.png", "--edit"),
    ],
)
def test_a_name_that_no_path_can_have_is_refused(
    command: tuple[str, ...], text: str, work: Path
) -> None:
    refusal(*command, text, cwd=work)


@pytest.mark.parametrize(
    "words",
    [
        [HUGE],
        ["trace", HUGE],
        ["rank", f"--{HUGE}"],
        ["query", "r", "--format", HUGE],
        ["plot", "r", "--figure", HUGE],
        ["trace", "plan", "--steps", "9" * 5000],
        ["rank", "r", "a", HUGE],
        ["rank", "r", "--no\x1b]0;title\x07"],
        ["generate", "caf\udce9"],
        ["query", "r", "SELECT '\udcff'"],
    ],
)
def test_a_wrong_word_is_named_in_a_bounded_message(words: list[str], work: Path) -> None:
    done = dqf(*words, cwd=work)
    assert done.returncode == 2
    assert "Error" in done.stderr
    assert len(done.stderr) < 1000
    assert "\x1b" not in done.stderr


def test_asking_for_a_path_never_raises() -> None:
    for text in (HUGE, "a\0b", "\udcff", "", "/dev/null/x"):
        assert not is_file(text)
        assert not is_folder(text)


def test_what_is_printed_moves_no_cursor() -> None:
    assert printable("a\x1b[31mb\x9b2J\u202ec\r") == r"a\x1b[31mb\x9b2J\u202ec\r"
    for text in ("café 猫 👩‍🚀", "naïve"):
        assert printable(text) == text
    assert len(message(HUGE, has_lines=False)) < 1000
    assert message("one\ntwo\x07", has_lines=True) == "one\ntwo\\x07"
    assert message("one\ntwo\x07", has_lines=False) == "one\\ntwo\\x07"


def test_the_repr_of_a_bomb_is_short() -> None:
    bomb: object = "lol"
    for _ in range(40):
        bomb = [bomb] * 9
    assert len(shown(bomb)) < 400
    assert shown("a cat") == "'a cat'"


def test_paths_are_asked_for_in_one_way() -> None:
    """`Path.is_file` and its like raise on long text; storage turns that into its own sentence."""
    asking = re.compile(r"(?<!entry)\.(is_file|is_dir)\(\)")
    for top in ("cli", "jobs", "engine", "schemas"):
        for source in (ROOT / top).rglob("*.py"):
            if "storage" not in str(source) and "reference" not in source.parts:
                assert not asking.search(source.read_text()), source


def test_a_newline_in_a_name_makes_no_second_line(tmp_path: Path) -> None:
    out = ("query", "r", "SELECT 1", "--out", "a\nb/c.csv")
    for command in (
        ("rank", "runs/a\nb"),
        ("edit", "check", "edits/a\nb"),
        ("doctor", "a\nb"),
        out,
    ):
        assert "a\\nb" in refusal(*command, cwd=tmp_path)


def test_a_package_that_the_environment_breaks_is_named(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "soon")
    command = [sys.executable, "-m", "dqf", "trace", "submit"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    said = (
        "dqf: huggingface_hub cannot be imported (invalid literal for int() with base 10: 'soon')"
    )
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("RAY_AUTH_TOKEN", "a\nb", "RAY_AUTH_TOKEN holds no token"),
        ("RAY_AUTH_TOKEN", "é", "RAY_AUTH_TOKEN holds no token"),
        ("RAY_AUTH_TOKEN_PATH", "/nowhere", "RAY_AUTH_TOKEN_PATH: /nowhere: no such file"),
        ("RAY_AUTH_TOKEN_PATH", "/dev/null", "RAY_AUTH_TOKEN_PATH: /dev/null cannot be read"),
    ],
)
def test_a_token_that_ray_cannot_send_is_refused(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(ClusterUnavailable, match=said) as caught:
        check_token()
    assert name.endswith("PATH") or value not in str(caught.value)


def test_runs_are_listed_of_a_folder_alone(work: Path, tmp_path: Path) -> None:
    assert "Not a directory" in refusal("trace", "list", str(work / "runs/r/plan.json"), cwd=work)
    assert dqf("trace", "list", "nowhere", cwd=tmp_path).stderr == "no runs in nowhere\n"


def test_a_line_about_a_name_stays_one_line(work: Path) -> None:
    done = dqf("query", "r", "SELECT 1", "--out", "a\nb.csv", cwd=work)
    assert (done.returncode, done.stderr) == (0, "1 row in a\\nb.csv\n")
    wrong = dqf("query", "r", "SELECT nothing\nFROM ranking", cwd=work).stderr
    assert len(wrong.splitlines()) == 2, "DuckDB's own words are lines"


@pytest.mark.parametrize("option", ["--top=1_0", "--min-te=0_1", "--known=target:1_0", "--top=１"])
def test_a_number_is_written_in_decimal_digits(option: str, work: Path) -> None:
    refusal("rank", "r", option, cwd=work)


@pytest.mark.parametrize("name", ["seeds", "noise_draws", "numerics"])
def test_a_text_in_a_plan_that_is_a_number_has_decimal_digits(name: str, tmp_path: Path) -> None:
    value = {"seeds": '["1_0"]', "noise_draws": '"1_0"', "numerics": '{steps: "1_0"}'}[name]
    (tmp_path / "p.yaml").write_text(f"{name}: {value}\n")
    assert "write '1_0' in decimal digits" in refusal(
        "trace", "plan", "--plan", "p.yaml", cwd=tmp_path
    )


def test_a_mistyped_edit_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    commands = (["generate", "a cat", "--edit"], ["edit", "evaluate"], ["edit", "check"])
    for command in commands:
        code = (
            f"import sys\nsys.argv = ['dqf', *{command}, 'nope']\n"
            "from cli.app import main\ntry:\n    main()\n"
            "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout.split() == ["2", "False"], done.stderr
        assert "no edit at edits/nope" in done.stderr
