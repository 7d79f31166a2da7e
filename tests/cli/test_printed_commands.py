"""Every command that dqf prints is one that the command line takes.

Messages say a command in backticks. What is filled in while dqf runs is a word here; words in
capitals, such as RUN, are for the reader to replace.
"""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.app import app
from cli.options.sampling import DIFFUSERS
from tests.docs.shown import ROOT, Shown
from tests.docs.test_readme import _parse

PACKAGES = ("dqf", "cli", "jobs", "engine", "schemas")
DQF: Any = typer.main.get_command(app)
COMMANDS = "|".join(map(re.escape, DQF.commands))
CALLED = re.compile(rf"\bdqf (?:{COMMANDS})(?![\w-])")
FILLED_IN = "1"
"""Stands for what is filled in: a name, and also a number."""


@dataclass(frozen=True)
class Text:
    """A text of the source that dqf may print."""

    place: str
    text: str

    @property
    def is_command(self) -> bool:
        """Whether the text is a command and nothing else, with an example's first words."""
        return self.text.startswith("Example: ") or CALLED.match(self.text) is not None

    @property
    def commands(self) -> list[str]:
        """The commands in the text."""
        if self.is_command:
            whole = self.text.removeprefix("Example: ").split("\n\n")[0]
            return re.split(r" && ", whole)
        return re.findall(r"`(dqf [^`]+)`", self.text)


def texts() -> Iterator[Text]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            source = path.read_text()
            if "dqf " in source or "--" in source:  # whatever the tests here look for has one
                for node in _said(ast.parse(source)):
                    yield Text(f"{path.relative_to(ROOT)}:{node.lineno}", _text_of(node))


def _said(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the whole strings of a tree but those that are statements, which document."""
    for node in ast.iter_child_nodes(tree):
        is_string = isinstance(node, ast.Constant | ast.JoinedStr)
        if is_string and _text_of(node) and not isinstance(tree, ast.Expr | ast.JoinedStr):
            yield node
        yield from _said(node)


def _text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text_of(part) or FILLED_IN for part in node.values)
    return ""


def helps() -> Iterator[Text]:
    """Yield the help of each command, which is the docstring of its function."""
    left = [("dqf", DQF)]
    while left:
        name, command = left.pop()
        yield Text(f"{name} --help", " ".join((command.help or "").split()))
        inner = getattr(command, "commands", {})
        left += [(f"{name} {word}", found) for word, found in inner.items()]


ALL = [*texts(), *helps()]
PRINTED = sorted({(text.place, command) for text in ALL for command in text.commands})


@pytest.mark.parametrize(("place", "command"), PRINTED)
def test_a_printed_command_is_taken(
    place: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _parse(Shown(page=place, words=tuple(shlex.split(command))))


def test_commands_are_printed_in_backticks() -> None:
    for text in ALL:
        if not text.is_command:
            assert not CALLED.search(re.sub(r"`[^`]*`", "", text.text)), text


def test_every_option_that_is_named_exists() -> None:
    known = {"--help", *(f"--{name}" for name in DIFFUSERS), *_options(DQF)}
    for text in ALL:
        named = re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]\b", text.text)
        if " " in text.text:  # a name alone is an option's own declaration
            assert set(named) <= known, text


def _options(command: Any) -> Iterator[str]:
    for param in command.params:
        yield from (*param.opts, *param.secondary_opts)
    for inner in getattr(command, "commands", {}).values():
        yield from _options(inner)


def test_many_are_found_and_a_wrong_one_would_fail() -> None:
    assert len(PRINTED) > 30
    with pytest.raises(Exception, match=r"(?i)missing"):
        _parse(Shown(page="", words=("dqf", "trace", "resume")))
    assert Text("", "see `dqf rank 1` and dqf query").commands == ["dqf rank 1"]
    assert CALLED.search("see dqf edit-batch")
    assert not CALLED.search("dqf reads")
