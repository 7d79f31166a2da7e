"""Options that several commands share, declared once."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

Command = Callable[..., None]


def with_options(
    declared: Command, *, into: str, made_by: Callable[[dict[str, Any]], Any]
) -> Callable[[Command], Command]:
    """Return a decorator that gives a command the parameters of `declared` as options.

    `made_by` turns their values into one value, which the command gets as its parameter `into`.
    """
    shared = inspect.signature(declared).parameters

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**given: Any) -> None:
            values = {name: given.pop(name) for name in shared}
            command(**{into: made_by(values)}, **given)

        kept = [p for p in inspect.signature(command).parameters.values() if p.name != into]
        options = [
            option.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for option in [*kept, *shared.values()]
        ]
        run.__signature__ = inspect.Signature(options)  # pyright: ignore
        run.__annotations__ = {option.name: option.annotation for option in options}
        return run

    return decorate
