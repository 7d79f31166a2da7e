"""The folders that hold runs and edits by name."""

import os
from pathlib import Path

from schemas.errors import StoreError

HOME = "DQF_HOME"
"""Variable with the folder that holds `runs/` and `edits/`; by default the working directory."""


def runs_folder() -> Path:
    """Return the folder of runs; StoreError: DQF_HOME is a URL."""
    return _home() / "runs"


def edits_folder() -> Path:
    """Return the folder of edits; StoreError: DQF_HOME is a URL."""
    return _home() / "edits"


def _home() -> Path:
    home = os.environ.get(HOME, "")
    if "://" in home:
        raise StoreError(f"{HOME} is a folder, not {home}: give a run in a bucket by its own URL")
    return Path(home)
