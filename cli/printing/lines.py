"""Lines for people: no text of a file or a name moves the cursor or colors the terminal."""

import logging
import shutil
import sys
import textwrap
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import IO

import typer

from schemas.printable import printable


def say(text: object, *, err: bool = False) -> None:
    """Print one line on stdout, or on stderr, with control characters as escapes."""
    typer.echo(printable(str(text), keep="\t"), err=err)


def say_lines(text: str, *, err: bool = False) -> None:
    """Print a text of several lines as `say` prints one."""
    for line in text.split("\n"):
        say(line, err=err)


def say_folded(text: str, *, err: bool = False) -> None:
    """Print a sentence, on a terminal in lines that break between words.

    A sentence with a command in backticks is left to the terminal, so that the command can be
    copied whole.
    """
    stream = sys.stderr if err else sys.stdout
    text = printable(text, keep="\t")
    if stream.isatty() and "`" not in text:
        width = shutil.get_terminal_size().columns - 1
        text = textwrap.fill(
            text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    say_lines(text, err=err)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """The lines that a command prints on stderr while it works."""

    quiet: bool = False
    """Whether only errors and failed units are reported."""
    verbose: bool = False
    """Whether the log's lines are printed too."""
    progress: bool = True
    """Whether progress is shown."""


DETAIL: ContextVar[Detail] = ContextVar("DETAIL", default=Detail())  # noqa: B039 - it is frozen


@contextmanager
def in_detail(detail: Detail) -> Generator[None]:
    """Print notes and the log within the block as `detail` says."""
    before, logger = DETAIL.set(detail), logging.getLogger("jobs")
    handler = logging.StreamHandler()
    if detail.verbose:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        DETAIL.reset(before)


def note(line: str) -> None:
    """Print a line about the work in progress on stderr, unless --quiet was given."""
    if not DETAIL.get().quiet:
        say_folded(line, err=True)


class PrintableFile:
    """A text file, usually a terminal, that gets no control characters but line ends and tabs."""

    def __init__(self, file: IO[str]) -> None:
        """Write to `file`."""
        self._file = file

    def write(self, text: str) -> int:
        """Write text with control characters as escapes."""
        return self._file.write(printable(text, keep="\n\t"))
