"""Writes docs/cli.md, the reference of every command, from the app: python -m docs.reference."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from cli.app import app

PAGE = Path(__file__).parent / "cli.md"
HEAD = """# Commands

Made from the program by `python -m docs.reference`. `dqf COMMAND --help` says the same. An error
in an input is reported in one sentence, with exit code 2; data go to stdout, notes to stderr. The
option `--install-completion` teaches your shell the commands.
"""
HIDDEN = {"--help", "--install-completion", "--show-completion"}


def reference() -> str:
    """Return the page."""
    group = typer.main.get_command(app)
    return "\n".join([HEAD, *_commands(group, group.make_context("dqf", [""]))])


def _commands(group: Any, context: Any) -> Iterator[str]:
    for name, command in group.commands.items():
        # Parsed leniently: arguments that a command needs are not there.
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        if hasattr(command, "commands"):
            yield from _commands(command, inner)
        else:
            yield from _command(command, inner)


def _command(command: Any, context: Any) -> Iterator[str]:
    path = context.command_path
    yield f"## {path}\n\n```text\n{path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    yield f"{command.help.strip()}\n"
    for title, kind in (("argument", "argument"), ("option", "option")):
        records = [
            parameter.get_help_record(context)
            for parameter in command.params
            if parameter.param_type_name == kind and not HIDDEN & set(parameter.opts)
        ]
        if records:
            rows = [f"| `{_cell(form)}` | {_cell(text)} |" for form, text in records]
            yield "\n".join([f"| {title} | |", "|---|---|", *rows, ""])
    if command.epilog:
        example, _, terms = command.epilog.removeprefix("Example: ").partition("\n\n")
        yield f"```bash\n{example}\n```\n"
        if terms:
            yield re.sub(r"docs/(\w+\.md)", r"[\1](\1)", f"{terms}.\n")


def _cell(text: str) -> str:
    """Return a text without what would end a table's cell."""
    return text.replace("|", ", ").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(reference())
