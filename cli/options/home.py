"""The folders that hold runs and edits by name."""

import os
from pathlib import Path

HOME = "DQF_HOME"
"""Variable with the folder that holds `runs/` and `edits/`; by default the working directory."""


def runs_folder() -> Path:
    """Return the folder of runs."""
    return Path(os.environ.get(HOME, ""), "runs")


def edits_folder() -> Path:
    """Return the folder of edits."""
    return Path(os.environ.get(HOME, ""), "edits")
