"""The commands that the README and the documentation show."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
ELSEWHERE = ("http://", "s3://", "gs://", "/shared/", "HEAD:", "HOST:")
"""What a line names that needs a cluster or a bucket."""
WEIGHTS = ("sd-1.4", "sd14", "qwen-image", "/models/", "ViT-")
"""What a line names that needs weights which are not in the repository, or a run of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A command in a page."""

    page: str
    words: tuple[str, ...]
    """As a shell reads them: without comments, `dqf` or `make` first."""

    @property
    def line(self) -> str:
        """The command as one line."""
        return shlex.join(self.words)

    @property
    def name(self) -> str:
        """The command's name, `trace submit` for example."""
        words = self.words[1:]
        return " ".join(words[:2] if words[0] in ("trace", "edit") else words[:1])

    @property
    def needs(self) -> str:
        """What this machine may not have and the command needs; "" if nothing."""
        if any(place in self.line for place in ELSEWHERE):
            return "a cluster or a bucket"
        return "weights" if any(name in self.line for name in WEIGHTS) else ""


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the language and the text of a page's code blocks."""
    return FENCE.findall(page.read_text())


def shown_commands(program: str, pages: list[Path] = PAGES) -> list[Shown]:
    """Return the lines of bash blocks that call a program, in order."""
    return [
        Shown(page=page.name, words=tuple(words))
        for page in pages
        for language, text in blocks(page)
        if language == "bash"
        for words in _commands(text)
        if words[:1] == [program]
    ]


def _commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of a block; one goes on while a quotation is open."""
    command = ""
    for line in text.replace("\\\n", " ").splitlines():
        command += line
        try:
            words = shlex.split(command, comments=True)
        except ValueError:
            command += "\n"
            continue
        yield words
        command = ""
    assert not command, f"an open quotation: {command}"


def inline_commands() -> list[Shown]:
    """Return what is called `dqf ...` within a sentence, often without all that it needs."""
    return [
        Shown(page=page.name, words=tuple(shlex.split(text)))
        for page in PAGES
        for text in re.findall(r"`(dqf [^`\n]+)`", FENCE.sub("", page.read_text()))
        if "|" not in text and "COMMAND" not in text
    ]
