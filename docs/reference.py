"""Writes docs/cli.md, the reference of every command, from the app: python -m docs.reference."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from cli.app import app

PAGE = Path(__file__).parent / "cli.md"
HEAD = """# Commands

Made from the program by `python -m docs.reference`, by task. `dqf COMMAND --help` says the same. An
error in an input is reported in one sentence, with exit code 2; data go to stdout, notes to stderr.
The option `--install-completion` teaches your shell the commands.
"""
TASKS = {
    "Choose a model and its components": ("models", "components"),
    "Trace": ("trace plan", "trace submit", "trace resume", "trace sets"),
    "Watch a run": ("trace status", "trace logs", "trace stop", "trace list", "doctor"),
    "Read what a run found": ("rank", "query", "export", "report", "plot"),
    "Edit concepts": ("edit-batch", "edit add", "edit remove", "edit list", "edit diff"),
    "Measure and use an edit": (
        *("edit evaluate", "edit results", "edit sweep", "edit attack"),
        *("edit check", "generate"),
    ),
}
"""The sections of the page, and the commands of each in the order in which they are used."""
SECOND_NAMES = ("edit create",)
"""Commands that are shown under their other name, which their help gives."""
HIDDEN = {"--help", "--install-completion", "--show-completion"}


def reference() -> str:
    """Return the page. KeyError: a task names a command that is not there."""
    group = typer.main.get_command(app)
    found = dict(_commands(group, group.make_context("dqf", [""])))
    for name in SECOND_NAMES:
        del found[name]
    lines = [HEAD, "| to | |", "|---|---|"]
    for task, names in TASKS.items():
        links = (f"[`{name}`](#dqf-{name.replace(' ', '-')})" for name in names)
        lines.append(f"| {task.lower()} | {', '.join(links)} |")
    for task, names in TASKS.items():
        lines += ["", f"## {task}", "", *(found.pop(name) for name in names)]
    assert not found, f"in no task: {', '.join(found)}"
    return "\n".join(lines)


def _commands(group: Any, context: Any) -> Iterator[tuple[str, str]]:
    """Yield each command's name, without `dqf`, and its text."""
    for name, command in group.commands.items():
        # Parsed leniently: arguments that a command needs are not there.
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        if hasattr(command, "commands"):
            yield from _commands(command, inner)
        else:
            yield inner.command_path.removeprefix("dqf "), "\n".join(_command(command, inner))


def _command(command: Any, context: Any) -> Iterator[str]:
    path = context.command_path
    yield f"### {path}\n\n```text\n{path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
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
