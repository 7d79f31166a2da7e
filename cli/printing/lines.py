"""Lines for people: no text of a file or a name moves the cursor or colors the terminal."""

import shutil
import sys
import textwrap
from typing import IO

import typer

from schemas.printable import printable


def say(text: object, *, err: bool = False) -> None:
    """Print a line on stdout, or on stderr, with control characters as escapes."""
    typer.echo(printable(str(text), keep="\n\t"), err=err)


def say_folded(text: str) -> None:
    """Print a sentence on stdout, on a terminal in lines that break between words."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        text = textwrap.fill(
            text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    say(text)


class PrintableFile:
    """A text file, usually a terminal, that gets no control characters but line ends and tabs."""

    def __init__(self, file: IO[str]) -> None:
        """Write to `file`."""
        self._file = file

    def write(self, text: str) -> int:
        """Write text with control characters as escapes."""
        return self._file.write(printable(text, keep="\n\t"))
