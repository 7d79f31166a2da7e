"""How commands name a run: its name under `runs/`, or its folder."""

from pathlib import Path
from typing import Annotated

import typer

RUNS = Path("runs")
"""Where runs are kept, under the working directory."""
RunArgument = Annotated[str, typer.Argument(help="A run's name under runs/, or its folder.")]


def run_path(run: str) -> Path:
    """Return the folder of a run given by name, or by a path with a separator."""
    return Path(run) if "/" in run or Path(run, "plan.json").is_file() else RUNS / run
