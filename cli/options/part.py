"""How commands name a part of the model."""

from typing import Any

import typer

from schemas.component import Part


def part_option(text: str) -> Any:
    """Return the option `--part`, which takes `unet` for the denoiser too."""
    return typer.Option(help=text, parser=_part, metavar=f"<{', '.join(Part)}>")


def _part(text: str) -> Part:
    try:
        return Part(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(Part)}") from None
