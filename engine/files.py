"""Files and folders: whether they are there, and reading those that are files and no devices."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from schemas.documents import MOST_BYTES, check_size, read_json
from schemas.errors import ConceptError, DqfError


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


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Return a regular file, open for reading.

    OSError: there is none, or it is a folder, a device or a pipe, which could be read for ever.
    """
    # Without the flag opening a pipe waits for somebody who writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, *, error: type[DqfError], most: int = MOST_BYTES) -> bytes:
    """Return a regular file's content; `error`: there is none, or more than `most` bytes."""
    try:
        with open_regular(path) as file:
            content = file.read(most + 1)
    except FileNotFoundError as problem:
        raise error(f"{path}: no such file") from problem
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"{path} cannot be read: {reason}") from problem
    check_size(content, str(path), most=most, error=error)
    return content


def read_json_file(path: Path, *, error: type[DqfError]) -> object:
    """Return what a JSON file holds; `error`: it cannot be read, or is none (`read_json`)."""
    return read_json(read_bytes(path, error=error), str(path), error=error)
