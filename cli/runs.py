"""How commands name a run: its name under `runs/`, its folder, or its URL."""

from pathlib import Path
from typing import Annotated

import typer

RUNS = Path("runs")
"""Where runs are kept, under the working directory."""
RunArgument = Annotated[
    str, typer.Argument(help="A run's name under runs/, its folder, or its s3:// or gs:// URL.")
]


def run_location(run: str) -> str:
    """Return the folder or URL of a run given by name, by a path with a separator, or by URL."""
    is_path = "/" in run or Path(run, "plan.json").is_file()
    return run if is_path else str(RUNS / run)
