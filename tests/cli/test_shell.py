"""The shell of `dqf query`, through prompt_toolkit's own pipe and through a pseudo-terminal."""

import contextlib
import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from cli.printing.output import Format
from cli.shell import SqlCompleter, is_complete, run_shell
from jobs.runs.trace_run import TraceRun
from tests.made_up.small_run import commit_scores, make_run

ROOT = Path(__file__).parents[2]
CTRL_C, CTRL_D = "\x03", "\x04"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TraceRun:
    run = make_run(tmp_path_factory.mktemp("work") / "runs" / "r")
    for chunk in range(run.num_chunks):
        commit_scores(run, chunk)
    return run


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the history out of the user's own folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "dqf" / "query_history"


def typed(run: TraceRun, text: str | bytes, runs: dict[str, TraceRun] | None = None) -> None:
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_bytes(text.encode() if isinstance(text, str) else text)
        run_shell(runs or {"r": run}, Format.CSV, only={})


def test_statements_end_with_a_semicolon(
    run: TraceRun, capsys: pytest.CaptureFixture[str], state: Path
) -> None:
    typed(run, "SELECT 1 AS a,\r2 AS b;\r\r" + CTRL_D)
    assert capsys.readouterr().out == "a,b\n1,2\n"
    assert "+SELECT 1 AS a,\n+2 AS b;" in state.read_text()
    assert state.stat().st_mode & 0o777 == 0o600


def test_a_byte_that_is_not_utf8_is_shown_as_one(
    run: TraceRun, capsys: pytest.CaptureFixture[str], state: Path
) -> None:
    typed(run, b"SELECT '\xff\xe2\x82' AS a;\r" + CTRL_D.encode())
    assert capsys.readouterr().out == "a\n\ufffd\ufffd\ufffd\n"
    assert "\ufffd" in state.read_text()


def test_a_history_that_is_no_file_is_left_out(
    run: TraceRun, capsys: pytest.CaptureFixture[str], state: Path
) -> None:
    state.mkdir(parents=True)
    typed(run, "SELECT 1 AS a;\r" + CTRL_D)
    shown = capsys.readouterr()
    assert (shown.out, shown.err.splitlines()[0][:18]) == ("a\n1\n", "no history is kept")


def test_errors_and_ctrl_c_do_not_end_it(run: TraceRun, capsys: pytest.CaptureFixture[str]) -> None:
    typed(run, "SELEKT;\r.nothing\rDROP VIEW ranking;\rSELECT '" + CTRL_C + "VALUES (7);\r.quit\r")
    shown = capsys.readouterr()
    assert shown.out == "col0\n7\n"
    assert "syntax error" in shown.err
    assert "no command .nothing: there are .tables" in shown.err
    assert "one SELECT statement, not DROP" in shown.err
    assert "canceled" in shown.err


def test_commands(run: TraceRun, capsys: pytest.CaptureFixture[str]) -> None:
    typed(
        run,
        ".help\r.tables\r.schema captions;\r.schema nothing\r.format jsonl\r.format x\r"
        "SELECT 1 AS a;\r.examples\r.example recovery\r.example compare-runs\r.quit\r",
    )
    shown = capsys.readouterr()
    for expected in (".example", "caption_effects", "caption_id", '{"a": 1}', "seed-agreement"):
        assert expected in shown.out
    assert '"share_over_half": ' in shown.out
    for expected in ("no view 'nothing'", "no format 'x'", "quantile_cont", "compares two runs"):
        assert expected in shown.err


def test_several_runs_are_schemas(run: TraceRun, capsys: pytest.CaptureFixture[str]) -> None:
    typed(run, "SELECT count(*) AS n FROM b.captions;\r.quit\r", {"a": run, "b": run})
    assert capsys.readouterr().out == "n\n3\n"


@pytest.mark.parametrize(
    ("text", "is_whole"),
    [
        ("", True),
        (".tables", True),
        ("SELECT 1", False),
        ("SELECT 1;", True),
        ("SELECT 1; -- and so on", True),
        ("SELECT 1 -- ;", False),
        ("SELECT ';", False),
        ("SELECT 'é;' FROM t;", True),
        ('SELECT ";"', False),
        ("SELECT $$;$$", False),
    ],
)
def test_where_a_statement_ends(text: str, is_whole: bool) -> None:
    assert is_complete(text) == is_whole


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sel", "SELECT"),
        ("SELECT * FROM rank", "ranking"),
        ("SELECT mean_", "mean_ie"),
        ("SELECT quantile_c", "quantile_cont"),
        ("SELECT ranking.q_", "q_value"),
        ("SELECT * FROM demo.compo", "component_effects"),
        ("SELECT * FROM demo.ranking.ie", "ie_low"),
        ("SELECT a.jacc", "jaccard"),
        (".exam", ".examples"),
    ],
)
def test_completion(text: str, expected: str) -> None:
    found = SqlCompleter({"demo": "run"}).get_completions(Document(text), CompleteEvent())
    assert expected in [completion.text for completion in found]


class Terminal:
    """The command on a pseudo-terminal."""

    def __init__(self, *arguments: str, cwd: Path, stdout: Path | None = None) -> None:
        self._seen = ""
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.environ |= {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
            if stdout:
                os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT), 1)
            os.execv(sys.executable, [sys.executable, "-m", "dqf", *arguments])

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def wait_for(self, text: str, *, typing: str = "") -> None:
        """Read until the text is there, and type something each second until then; fail after half
        a minute."""
        end = time.monotonic() + 30
        typed = time.monotonic()
        while text not in self._seen and time.monotonic() < end:
            if typing and time.monotonic() > typed + 1:
                self.type(typing)
                typed = time.monotonic()
            if select.select([self._end], [], [], 0.1)[0]:
                read = os.read(self._end, 65536).decode(errors="replace")
                if "\x1b[6n" in read:  # it asks where the cursor is
                    self.type("\x1b[1;1R")
                self._seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", read)
        assert text in self._seen, self._seen
        self._seen = self._seen.split(text, 1)[1]

    def exit_code(self, *, typing: str = "") -> int | None:
        """Wait for the process to end, type something each second until then, and return its exit
        code; None if it does not end."""
        end = time.monotonic() + 20
        typed = time.monotonic()
        while time.monotonic() < end:
            if typing and time.monotonic() > typed + 1:
                self.type(typing)
                typed = time.monotonic()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        return None

    def end(self) -> None:
        """Kill the process if it is still there."""
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        os.close(self._end)


@pytest.fixture
def terminal(run: TraceRun) -> Iterator[Terminal]:
    terminal = Terminal("query", "r", cwd=Path(run.location).parents[1])
    yield terminal
    terminal.end()


def test_on_a_terminal_ctrl_c_cancels_a_query_and_ctrl_d_leaves(terminal: Terminal) -> None:
    terminal.wait_for("dqf>")
    terminal.type("SELECT sum(a.range * b.range) FROM range(10000000) a, range(100000000) b;\r")
    # A busy machine may begin the query late: what comes before it only empties the line.
    terminal.wait_for("canceled", typing=CTRL_C)
    terminal.type("SELECT 6 * 7 AS answer;\r")
    terminal.wait_for("42")
    terminal.wait_for("1 row")
    terminal.wait_for("dqf>")
    terminal.type(CTRL_D)
    assert terminal.exit_code() == 0


@pytest.mark.parametrize("is_full", [False, True])
def test_data_alone_go_to_a_file_and_none_is_lost(
    is_full: bool, run: TraceRun, tmp_path: Path
) -> None:
    out = Path("/dev/full") if is_full else tmp_path / "out.csv"
    work = Path(run.location).parents[1]
    terminal = Terminal("query", "r", "--format", "csv", cwd=work, stdout=out)
    try:
        terminal.wait_for("dqf>")
        terminal.type("SELECT 1 AS a;\r")
        if is_full:
            terminal.wait_for("dqf: cannot write to stdout: No space left on device")
        # While the statement is answered, what is typed is lost.
        code = terminal.exit_code(typing="" if is_full else CTRL_D)
        assert code == (2 if is_full else 0)
    finally:
        terminal.end()
    assert is_full or out.read_text() == "a\n1\n"
