"""`dqf rank` for people: sentences, then a table that a terminal of 80 columns holds."""

import io
import re
import sys
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
from rich.cells import cell_len

from cli.app import main
from cli.printing.ranking import columns_of, print_ranking
from tests.cli.test_commands import dqf
from tests.made_up.noises import make_swept_run
from tests.made_up.report_run import make_report_run

ROW = re.compile(
    r" *\d+(-\d+)?  .*[+-]\d\.\d{3} +\[-?\d\.\d{3}, -?\d\.\d{3}\] +(<0\.001|\d\.\d{3})  (causal|no)"
)
"""A rank, a name, an effect, its interval, q and the verdict."""

Shown = Callable[..., list[str]]


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    make_report_run(folder / "runs" / "r")
    make_swept_run(folder / "runs" / "swept")
    return folder


@pytest.fixture
def on_terminal(work: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Return what returns the lines that a command shows on a terminal of some columns."""

    def shown(*words: str, columns: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        with (
            redirect_stdout(Terminal()) as out,
            redirect_stderr(io.StringIO()),
            chdir(work),
            mock.patch.object(sys, "argv", ["dqf", *words]),
            pytest.raises(SystemExit) as end,
        ):
            main()
        assert not end.value.code
        return out.getvalue().splitlines()

    return shown


def test_a_terminal_of_80_columns_gets_sentences_and_whole_rows(on_terminal: Shown) -> None:
    lines = on_terminal("rank", "r", "--attribute", "object", "--top", "3", columns=80)
    assert max(map(cell_len, lines)) <= 80
    table = lines[lines.index("") + 1 :]
    assert lines[0].startswith("object, denoiser: 5 of 45 states are causal")
    assert re.search(r"led by up 0 resnet 0: \+0\.\d{3} \[", " ".join(map(str.strip, lines)))
    assert "12 captions" in table[0]
    rows = [line for line in table[1:] if not line.startswith("object, ")]
    assert [line for line in rows if ROW.fullmatch(line)] == rows[1:]
    assert len(rows) == 1 + 6
    assert re.match(r" +1  up 0 resnet 0 +0:4 ", rows[1])


def test_quiet_says_one_sentence_an_attribute_and_one_table_has_the_leaders(
    on_terminal: Shown, work: Path
) -> None:
    lines = on_terminal("rank", "r", "-q", "--top", "1", "--part", "denoiser", columns=160)
    sentences, table = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert len(sentences) == 3
    assert "object: 5 of 45 states are causal (q < 0.05), led by up 0 resnet 0." in sentences
    assert all(re.search(r": (\d+ of|none of) \d+ states ", line) for line in sentences)
    heading, titles, *rows = table
    assert heading.startswith("indirect effect by target, restore; state patches; ")
    assert titles.split()[:4] == ["attribute", "part", "rank", "component"]
    assert [row.split("  ")[0].strip() for row in rows] == [s.split(": ")[0] for s in sentences]
    # Where the attributes' names leave no room, each ranking has a heading.
    narrow = on_terminal("rank", "r", "-q", "--top", "1", "--part", "denoiser", columns=80)
    assert max(map(cell_len, narrow)) <= 80
    assert any(line.startswith("object, denoiser") for line in narrow)
    assert dqf("rank", "r", "-q", "--format", "csv", cwd=work).stderr.count("\n") == 3


def test_more_columns_show_more(on_terminal: Shown) -> None:
    narrow, wide, widest = (
        on_terminal("rank", "r", "--part", "denoiser", columns=columns)
        for columns in (80, 100, 200)
    )
    assert not any("recovery" in line for line in narrow)
    assert any(line.endswith("recovery") for line in wide)
    assert any("recovery" in line and "q in run  full name" in line for line in widest)


def test_an_undefined_recovery_is_said_and_no_share_is_minus_zero(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"a": "layer 0 MLP", "b": "layer 1 MLP"}
    row = {
        "attribute": "style", "part": "text-encoder", "rank": 1, "intervention": "restore",
        "mean_ie": 0.0, "ie_low": -0.1, "ie_high": 0.1, "q_causal": 0.5, "q_run": 0.5,
        "is_causal": False, "recovery_low": None, "recovery_high": None,
    }  # fmt: skip
    shares = {"a": None, "b": -0.001}
    rows = [{**row, "component": name, "mean_recovery": share} for name, share in shares.items()]
    print_ranking(rows, effect="effect", columns=columns_of(names, [2, 2], rows))
    _, _, _, first, second, last = capsys.readouterr().out.splitlines()
    assert re.search(r"layer 0 MLP .* no +- ", first)
    assert re.search(r"layer 1 MLP .* no +0% ", second)
    assert last == "recovery -: undefined, total effect too near zero; --noise may be too weak"


def test_how_to_read_the_numbers_comes_after_them(on_terminal: Shown) -> None:
    lines = on_terminal("rank", "swept", "--attribute", "object", "--top", "1", columns=80)
    first, last = [number for number, line in enumerate(lines) if not line]
    assert any(line.startswith(" rank  component") for line in lines[first:last])
    assert lines[last + 1].startswith("object, text-encoder, noise 0.5: activations of another")


def test_a_pipe_gets_every_column_and_other_formats_the_data_alone(work: Path) -> None:
    shown = dqf("rank", "r", "--part", "denoiser", "--attribute", "object", cwd=work)
    left = "1 of 34 units of r have no scores, 1 of which failed: the numbers are of the others"
    assert shown.stderr.startswith(left)
    assert shown.stderr.count("\n") == 1
    assert "unet.up_blocks.0.resnets.0" in shown.stdout
    data = dqf("rank", "r", "--attribute", "object", "--format", "csv", cwd=work)
    assert data.stdout.startswith("attribute,part,measure,rank,component,token,steps,patch_kind,")
    assert "\nobject, denoiser: 5 of 45 states are causal" in data.stderr


def test_states_beyond_a_control_have_their_own_columns(on_terminal: Shown) -> None:
    words = ("rank", "r", "--beyond", "other-caption", "--attribute", "object", "--top", "2")
    lines = on_terminal(*words, columns=80)
    assert max(map(cell_len, lines)) <= 80
    (head,) = (line for line in lines if "beyond  " in line)
    assert " ".join(head.split()) == "component where beyond 95 % interval q restored"


def test_one_caption_has_no_interval(work: Path) -> None:
    words = ("rank", "r", "--attribute", "right-to-left", "--part", "text-encoder", "--top", "1")
    assert re.search(r"\+0\.\d{3} +none +1\.000  no ", dqf(*words, cwd=work).stdout)


def test_noises_have_rankings_of_their_own(on_terminal: Shown, work: Path) -> None:
    lines = on_terminal("rank", "swept", "--attribute", "object", columns=80)
    assert max(map(cell_len, lines)) <= 80
    shown = [re.search(r"self-attn  noise (\S+)", line) for line in lines]
    assert [found[1] for found in shown if found] == ["0.5", "0.5", "3", "3"]
    one = on_terminal("rank", "swept", "--attribute", "object", "--noise", "3", columns=80)
    assert any("noise 3 sigmas" in line for line in one)
    assert not any("0.5" in line for line in one)
    data = dqf("rank", "swept", "--format", "csv", cwd=work).stdout.splitlines()
    place = data[0].split(",").index("noise_sigmas")
    assert {line.split(",")[place] for line in data[1:]} == {"0.5", "3.0"}
    assert "noise_sigmas" not in dqf("rank", "r", "--format", "csv", cwd=work).stdout
    refused = dqf("rank", "swept", "--noise", "10", cwd=work)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "run swept has no noise 10: it has 3, 0.5" in refused.stderr


def test_the_leaders_of_a_growing_run_are_those_of_each_noise(work: Path) -> None:
    lines = dqf("trace", "status", "swept", cwd=work).stdout.splitlines()
    leaders = [line.split() for line in lines if "object" in line]
    assert [(words[-4], words[-3][:5]) for words in leaders] == [("0.5", "+0.04"), ("3", "+0.30")]
    assert " noise " not in dqf("trace", "status", "r", cwd=work).stdout
