"""Words that a command line cannot have: the command that was meant, and a message of a bounded
length."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from typer._click.exceptions import BadParameter, ClickException, UsageError
from typer.core import TyperGroup

from cli.options.sampling import as_typed
from schemas.printable import message

MESSAGE = 400
"""Characters of a message about a word, which a frame and the command's usage go with."""
OTHER_WORDS = {"ls": "trace list", "runs": "trace list", "help": "--help", "edits": "edit list"}
"""Commands, by other words for them."""


class MeantGroup(TyperGroup):
    """All of dqf's commands: for the name of a subcommand it says which command has it.

    A huge word is not repeated whole in what is said about it.
    """

    def make_context(self, info_name: Any, args: list[str], *more: Any, **extra: Any) -> Any:
        """Parse the options before a command; UsageError: a word is not UTF-8, which no tokenizer,
        database or table takes."""
        with _bounded():
            for word in args:
                if not _is_utf8(word):
                    raise UsageError(f"{word!r} is not UTF-8 text: write it, or name it, as UTF-8")
            return super().make_context(info_name, args, *more, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Parse and run the command."""
        with _bounded():
            return super().invoke(ctx)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of help: those that have inner commands come first."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: not hasattr(self.commands[name], "commands"))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the first word's command; UsageError, with a suggestion, otherwise."""
        try:
            return super().resolve_command(ctx, args)
        except UsageError as error:
            if meant := self._meant(args[0]):
                names = " or ".join(f"'dqf {name}'" for name in meant)
                error.message = f"No such command {args[0]!r}. Did you mean {names}?"
            raise

    def _meant(self, word: str) -> list[str]:
        if word in OTHER_WORDS:
            return [OTHER_WORDS[word]]
        groups = {name: getattr(group, "commands", {}) for name, group in self.commands.items()}
        return [f"{name} {word}" for name, inner in groups.items() if word in inner]


@contextmanager
def _bounded() -> Generator[None]:
    """Cut the message of an error about the command line, with the options as they were typed,
    without the name of Python's exception and with control characters as escapes."""
    try:
        yield
    except ClickException as error:
        said = as_typed(error.message.replace("Value error, ", ""), sys.argv)
        if isinstance(error, BadParameter) and error.param and not error.param_hint:
            error.param_hint = as_typed(error.param.get_error_hint(), sys.argv)
        error.message = message(said, has_lines=False, most=MESSAGE)
        raise


def _is_utf8(word: str) -> bool:
    """Return whether a word of the command line was UTF-8; Python keeps other bytes as
    surrogates."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
