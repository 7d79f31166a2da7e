"""Every command that the README and the docs show exists, with the options that they show."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def shown_commands() -> list[str]:
    """Return the lines that start with `dqf` or `make` in the pages' bash blocks."""
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)
    ]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return sorted({line.strip() for line in lines if re.match(r"\s*(dqf|make) ", line)})


def test_the_readme_shows_both_make_commands_and_the_main_path() -> None:
    shown = "\n".join(shown_commands())
    for needed in ("make demo", "make test", "dqf trace submit", "dqf rank", "dqf edit-batch"):
        assert needed in shown


@pytest.mark.parametrize("line", [c for c in shown_commands() if c.startswith("dqf")])
def test_shown_command_parses(line: str) -> None:
    group = typer.main.get_command(app)
    words = shlex.split(line, comments=True)[1:]
    context = group.make_context("dqf", words, resilient_parsing=False)
    _parse_subcommand(group, context)


def _parse_subcommand(group, context) -> None:  # noqa: ANN001
    """Parse the words after a group's name as the group's command would, without running it."""
    words = [*context._protected_args, *context.args]
    name, command, rest = group.resolve_command(context, words)
    inner = command.make_context(name, list(rest), parent=context)
    if hasattr(command, "resolve_command"):
        _parse_subcommand(command, inner)


def test_shown_python_runs() -> None:
    page = (ROOT / "docs/tracing.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    scope: dict[str, Any] = {}
    exec(compile(block, "docs/tracing.md", "exec"), scope)
    assert len(scope["table"]) == 2 * 2 * 4


@pytest.mark.parametrize("line", [c for c in shown_commands() if c.startswith("make")])
def test_shown_make_target_exists(line: str) -> None:
    target = shlex.split(line, comments=True)[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
