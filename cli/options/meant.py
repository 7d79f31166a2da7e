"""Suggesting the command for a word that is not a command."""

from typing import Any

from typer._click.exceptions import UsageError
from typer.core import TyperGroup

OTHER_WORDS = {"ls": "trace list", "runs": "trace list", "help": "--help", "edits": "edit list"}
"""Commands, by other words for them."""


class MeantGroup(TyperGroup):
    """A group that, for the name of a subcommand, says which command has it."""

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

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a wrong value is said without the name of Python's exception."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            error.message = error.message.replace("Value error, ", "")
            raise

    def _meant(self, word: str) -> list[str]:
        if word in OTHER_WORDS:
            return [OTHER_WORDS[word]]
        groups = {name: getattr(group, "commands", {}) for name, group in self.commands.items()}
        return [f"{name} {word}" for name, inner in groups.items() if word in inner]
