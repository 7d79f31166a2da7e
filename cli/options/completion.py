"""Names that the shell completes: runs, edits, models, attributes and views."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import typer

from cli.options.home import edits_folder, runs_folder
from cli.options.runs import run_location
from schemas.errors import StoreError


def runs(incomplete: str) -> list[str]:
    """Return the names of runs that begin with a text."""
    return _beginning(incomplete, _folders(runs_folder, "plan.json"))


def edits(incomplete: str) -> list[str]:
    """Return the names of edits that begin with a text."""
    return _beginning(incomplete, _folders(edits_folder, "edit.json"))


def models(incomplete: str) -> list[str]:
    """Return the names of models that dqf knows and that begin with a text."""
    from engine.model.registry import BUILT_IN

    return _beginning(incomplete, BUILT_IN)


def attributes(context: typer.Context, incomplete: str) -> list[str]:
    """Return the attributes of the command's run that begin with a text."""
    from jobs.runs.trace_run import open_run
    from schemas.errors import DqfError

    with suppress(DqfError):
        # While an option lacks its value, words before it are not parsed yet.
        run = context.params.get("run") or next(iter(context.args), "")
        captions = open_run(run_location(run)).plan.captions
        return _beginning(incomplete, dict.fromkeys(caption.attribute for caption in captions))
    return []


def runs_or_views(context: typer.Context, incomplete: str) -> list[str]:
    """Return the views after `--schema`, and otherwise the runs, that begin with a text."""
    if not context.params.get("schema"):
        return runs(incomplete)
    from schemas.documentation import documented

    return _beginning(incomplete, (view.name for view in documented()))


def _folders(holder: Callable[[], Path], marker: str) -> list[str]:
    with suppress(StoreError):
        return sorted(found.parent.name for found in holder().glob(f"*/{marker}"))
    return []


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
