"""A command in this process: how it ended, and that it changed nothing outside its folders."""

import os
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from typer.testing import CliRunner

from cli.app import app
from schemas.errors import DqfError
from schemas.printable import message

LIMIT_S = 120
"""How long a command may take, on a busy machine; those that wait for a pipe never end."""


def check_ends_in_order(arguments: Sequence[str], *, folder: Path) -> str:
    """Run a command in `folder/work`, return what it printed; AssertionError if it ends otherwise.

    It ends with 0, or with 2 and one sentence of less than 1,000 characters, in time, and leaves
    `folder/outside` as it is. `doctor` ends with 1 where it has found something.
    """
    work, outside = folder / "work", folder / "outside"
    before = _facts(outside)
    with _within(LIMIT_S), _in(work):
        result = CliRunner().invoke(app, list(arguments))
    error = result.exception
    if isinstance(error, DqfError):
        said = message(f"dqf: {error}", has_lines=error.has_lines)
        assert error.exit_code == 2, said
        assert len(said) < 1000, said
        # A file of the user's own is refused with every line of it that is wrong.
        assert all(line.startswith("  line ") for line in said.split("\n")[1:]), said
    elif error is not None and not isinstance(error, SystemExit):
        raise AssertionError("".join(traceback.format_exception(error))) from error
    else:
        said = result.output
        assert result.exit_code in ((0, 1, 2) if arguments[0] == "doctor" else (0, 2)), said
        assert result.exit_code == 0 or len(result.stderr) < 1000, result.stderr
    assert "Traceback" not in said, said
    assert _facts(outside) == before
    return said


def _facts(folder: Path) -> list[tuple[str, int, int, bytes]]:
    """Return name, mode, time and content of everything in a folder."""
    return [
        (path.name, (found := path.lstat()).st_mode, found.st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
    ]


@contextmanager
def _in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"not ended after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
