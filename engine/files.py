"""Files and folders: whether they are there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import ConceptError


def is_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is there; text that cannot be a path, as SQL, is none.

    `Path.is_file` raises OSError for a name of more than 255 bytes, and ValueError for a null byte.
    """
    return os.path.isfile(path)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder is there; text that cannot be a path is none."""
    return os.path.isdir(path)


def refuse_occupied(out: Path) -> None:
    """Raise ConceptError if `out` is a file or a folder that holds something."""
    if is_file(out) or (is_folder(out) and any(out.iterdir())):
        raise ConceptError(f"{out} exists and is not an empty folder; choose another --out")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `out` when the block ends, and vanishes if it fails.

    ConceptError: it cannot be made; `out` is occupied, before or after the block.
    """
    refuse_occupied(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise ConceptError(
            f"cannot write in {out.parent}: {error.strerror}; choose another --out"
        ) from error
    try:
        yield work
        _make_readable(work)
        refuse_occupied(out)
        # rename(2) replaces an empty folder and fails on any other.
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _make_readable(folder: Path) -> None:
    """Make a folder as readable as any other here: mkdtemp and safetensors leave it private."""
    umask = os.umask(0)
    os.umask(umask)
    for path in [folder, *folder.rglob("*")]:
        path.chmod((0o777 if is_folder(path) else 0o666) & ~umask)
