"""Options that several commands share, declared once."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

Command = Callable[..., None]


def with_options(
    declared: Command, *, into: str, made_by: Callable[[dict[str, Any]], Any]
) -> Callable[[Command], Command]:
    """Return a decorator that gives a command the options that `declared` has as parameters.

    The command gets what `made_by` makes of their values as its parameter `into`.
    """
    shared = inspect.signature(declared).parameters

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**given: Any) -> None:
            values = {name: given.pop(name) for name in shared}
            command(**{into: made_by(values)}, **given)

        own = [p for p in inspect.signature(command).parameters.values() if p.name != into]
        options = [
            option.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for option in [*own, *shared.values()]
        ]
        run.__signature__ = inspect.Signature(options)  # pyright: ignore
        run.__annotations__ = {option.name: option.annotation for option in options}
        return run

    return decorate
