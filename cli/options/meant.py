"""Words that a command line cannot have: the command that was meant, and a message of a bounded
length."""

import sys
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from typer._click.exceptions import BadParameter, ClickException, UsageError
from typer.core import TyperCommand, TyperGroup, TyperOption

from cli.options.sampling import as_typed
from schemas.numbers import check_decimal
from schemas.printable import message

MESSAGE = 400
"""Characters of a message about a word, which a frame and the command's usage go with."""
MAY_BE_EMPTY = frozenset({"negative_prompt", "title", "command"})
"""Options whose empty text is a value, or is refused by the command."""
OTHER_WORDS = {
    **dict.fromkeys(("ls", "runs", "trace ls", "trace runs"), "trace list"),
    **dict.fromkeys(("edits", "edit ls", "edit show", "edit info"), "edit list"),
    **dict.fromkeys(("trace show", "trace info"), "trace status"),
    **dict.fromkeys(("run", "trace run", "trace start"), "trace submit"),
    **dict.fromkeys(("trace kill", "trace cancel"), "trace stop"),
    **dict.fromkeys(("models list", "models ls"), "models"),
    "edit rm": "edit remove",
    "help": "--help",
    "show": "report",
}
"""Commands, by other words for them."""


class SuggestingGroup(TyperGroup):
    """Commands: for a word that is none of them it says which command is meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the first word's command; UsageError, with a suggestion, otherwise."""
        try:
            return super().resolve_command(ctx, args)
        except UsageError as error:
            group = f"{ctx.info_name} " if ctx.parent else ""
            other = OTHER_WORDS.get(group + args[0])
            if meant := [other] if other else self.meant(args[0]):
                error.message = f"No such command {args[0]!r}. {_did_you_mean(meant)}"
            raise

    def meant(self, word: str) -> list[str]:
        """Return the commands, besides those with a similar name, that a word may mean."""
        return []


class OnceCommand(TyperCommand):
    """A command whose options have one value, unless they may be repeated."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options; BadParameter: one is given twice, so that a value would be lost, a
        value is empty, which would be taken for none given or, of a path, for the working
        directory, or a number is not written in decimal digits."""
        if ctx.resilient_parsing:  # completion reads what is typed so far
            return super().parse_args(ctx, args)
        typed, _, order = self.make_parser(ctx).parse_args([*args])
        options: list[Any] = [each for each in order if isinstance(each, TyperOption)]
        for option, count in Counter(options).items():
            if count > 1 and not (option.multiple or option.is_flag):
                raise BadParameter(f"is given {count} times: give it once", ctx, option)
        rest = super().parse_args(ctx, args)
        for place in cast("list[Any]", self.get_params(ctx)):
            written, read = typed.get(place.name), ctx.params.get(place.name or "")
            for word, value in zip(_all(written), _all(read), strict=False):
                if word == "" and isinstance(value, Path):
                    raise BadParameter("is empty: give a path", ctx, place)
                if word == "" and not value and place in options and place.name not in MAY_BE_EMPTY:
                    raise BadParameter("is empty: give a value, or leave it out", ctx, place)
                try:
                    check_decimal(word, value)
                except ValueError as problem:
                    raise BadParameter(str(problem), ctx, place) from problem
        return rest


def _all(values: Any) -> Sequence[object]:
    return values if isinstance(values, list | tuple) else [values]  # pyright: ignore


class ListingCommand(OnceCommand):
    """A command that lists all there is of something, and takes no name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options; UsageError, with a suggestion for the first word, otherwise."""
        words = [word for word in args if not word.startswith("-")]
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            if words and "unexpected extra" in error.message:
                other = OTHER_WORDS.get(f"{ctx.info_name} {words[0]}", f"components {words[0]}")
                error.message += f". {_did_you_mean([other])}"
            raise


class MeantGroup(SuggestingGroup):
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

    def meant(self, word: str) -> list[str]:
        """Return the inner commands of this name."""
        groups = {name: getattr(group, "commands", {}) for name, group in self.commands.items()}
        return [f"{name} {word}" for name, inner in groups.items() if word in inner]


def _did_you_mean(commands: list[str]) -> str:
    names = " or ".join(f"'dqf {name}'" for name in commands)
    return f"Did you mean {names}?"


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
