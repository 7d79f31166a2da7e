"""Naming a run in commands: by its name under `runs/`, its folder, or its URL."""

from collections.abc import Sequence
from pathlib import Path

from cli.options.home import runs_folder
from engine.files import is_file
from schemas.errors import QueryRefused


def run_location(run: str) -> str:
    """Return the folder or URL of a run given by name, by a path with a separator, or by URL.

    QueryRefused: the name is empty, or means the folder above.
    """
    if not run.strip() or run == "..":
        raise QueryRefused(f"{run!r} names no run: give its name, its folder or its URL")
    is_path = "/" in run or run == "." or is_file(Path(run, "plan.json"))
    return run if is_path else str(runs_folder() / run)


def is_run(text: str) -> bool:
    """Return whether a word of the command line names an existing folder of a run."""
    return is_file(Path(run_location(text), "plan.json"))


def named_locations(arguments: Sequence[str]) -> dict[str, str]:
    """Return the locations of runs by their names in SQL.

    A name is the last part of the location, or NAME in NAME=RUN. QueryRefused: two runs have one
    name, or a NAME is empty.
    """
    locations: dict[str, str] = {}
    for argument in arguments:
        name, equals, location = argument.partition("=")
        if not equals or "/" in name or is_run(argument):
            name, location = "", argument
        elif not name:
            raise QueryRefused(f"{argument!r} has no name before the `=`: give NAME=RUN, or a run")
        location = run_location(location)
        name = name or location.rstrip("/").rpartition("/")[2]
        if name.lower() in map(str.lower, locations):
            raise QueryRefused(f"two runs are called {name!r}: call one of them NAME=RUN")
        locations[name] = location
    return locations
