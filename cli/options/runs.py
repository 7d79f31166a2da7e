"""How commands name a run: its name under `runs/`, its folder, or its URL."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from engine.files import is_file
from schemas.errors import QueryRefused

RUNS = Path("runs")
"""Where runs are kept, under the working directory."""
RunArgument = Annotated[
    str, typer.Argument(help="A run's name under runs/, its folder, or its s3:// or gs:// URL.")
]


def run_location(run: str) -> str:
    """Return the folder or URL of a run given by name, by a path with a separator, or by URL.

    QueryRefused: it is empty, or stands for the folder above.
    """
    if not run.strip() or run == "..":
        raise QueryRefused(f"{run!r} names no run: give its name, its folder or its URL")
    is_path = "/" in run or run == "." or is_file(Path(run, "plan.json"))
    return run if is_path else str(RUNS / run)


def is_run(text: str) -> bool:
    """Return whether a word of the command line names a run's folder that is there."""
    return is_file(Path(run_location(text), "plan.json"))


def named_locations(arguments: Sequence[str]) -> dict[str, str]:
    """Return the locations of runs by the names that they have in SQL.

    That is the last part of the location, or what stands before it in NAME=RUN. QueryRefused: two
    have one name.
    """
    found: dict[str, str] = {}
    for argument in arguments:
        name, equals, location = argument.partition("=")
        if not equals or "/" in name or is_run(argument):
            name, location = "", argument
        location = run_location(location)
        name = name or location.rstrip("/").rpartition("/")[2]
        if name.lower() in map(str.lower, found):
            raise QueryRefused(f"two runs are called {name!r}: call one of them NAME=RUN")
        found[name] = location
    return found
