"""The option for a part of the model."""

from typing import Any

import typer

from cli.options.panels import WHERE, choice
from schemas.component import Part


def part_option(text: str, *, default: str) -> Any:
    """Return the option `--part`, which takes `unet` for the denoiser too."""
    return choice(text, Part, panel=WHERE, parser=_part, metavar="PART", default=default)


def _part(text: str) -> Part:
    try:
        return Part(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(Part)}") from None
