"""The packages of dqf, whose names a user's files may have too."""

import importlib
import importlib.util
import sys
from pathlib import Path

INNER_PACKAGES = ("schemas", "engine", "jobs", "cli")
"""The packages below this one."""
ROOT = Path(__file__).parents[1]


def load_own() -> None:
    """Import dqf's own packages from the folder of this package, whatever `sys.path` begins with.

    Their modules are found from then on, as an imported package keeps its folder. Only dqf's own
    processes call this: the command, and the workers that Ray starts for it.
    """
    sys.path.insert(0, str(ROOT))
    try:
        for name in INNER_PACKAGES:
            importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT))


def refuse_foreign() -> None:
    """Raise ImportError if another package or module hides one of dqf's, and name both files."""
    for name in INNER_PACKAGES:
        ours = ROOT / name / "__init__.py"
        origin = _origin(name)
        if origin is None or Path(origin).resolve() != ours.resolve():
            raise ImportError(
                f"dqf's package {ours} is hidden by {_place(name, origin)}: rename that, or start "
                "Python in another folder"
            )


def _origin(name: str) -> str | None:
    """Return the file of the package or module that an import of this name gives."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module that a program made by hand has no spec
        return None
    return None if spec is None else spec.origin


def _place(name: str, origin: str | None) -> str:
    """Return the file that Python finds under a package's name, or a description if it has none."""
    if origin is not None:
        return origin
    folders = [str(Path(folder, name)) for folder in sys.path if Path(folder, name).is_dir()]
    return folders[0] if folders else f"a module {name!r} without a file"
