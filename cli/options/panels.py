"""Options in the panels of `--help`."""

from collections.abc import Iterable
from typing import Any

import typer

MODEL, WHAT, WHERE, CORRUPTION = "Model", "What", "Where", "Corruption"
SAMPLING, READING, RUNNING = "Sampling", "Reading", "Running"
SOLVING = "Solving"


def option(text: str, *names: str, panel: str, default: str | None = None, **more: Any) -> Any:
    """Return an option of a panel.

    `default` says in words what holds where the option is not given. By default the value itself
    is shown.
    """
    shown = True if default is None else default
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=shown, **more)


def choice(text: str, values: Iterable[str], *names: str, panel: str, **more: Any) -> Any:
    """Return an option with one of `values`, which its help lists: no line breaks within one."""
    return option(f"{text}: {', '.join(values)}.", *names, panel=panel, **more)
