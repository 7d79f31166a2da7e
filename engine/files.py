"""Files and folders: checking that they exist, reading only regular files, writing whole files."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO

from schemas.documents import MOST_BYTES, check_size, read_json
from schemas.errors import ConceptError, DqfError, StoreError
from schemas.results import SWEEP


def is_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file exists; False for text that cannot be a path, such as SQL.

    `Path.is_file` raises OSError for a name of more than 255 bytes, and ValueError for a null byte.
    """
    return os.path.isfile(path)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder exists; False for text that cannot be a path."""
    return os.path.isdir(path)


def similar_name(path: str | os.PathLike[str], *, holding: str) -> str | None:
    """Return the name most like that of a path among the folders next to it that hold a file.

    None: no such folder has a similar name, or the folders cannot be listed.
    """
    folder, name = os.path.split(os.path.abspath(path))
    try:
        others = [other for other in os.listdir(folder) if is_file(Path(folder, other, holding))]
    except (OSError, ValueError):
        return None
    return next(iter(get_close_matches(name, others, n=1)), None)


def refuse_occupied(out: Path, *, replacing: str | None = None) -> None:
    """Raise ConceptError unless `out` is an empty folder, or one that this process can make.

    `replacing`: the name of a file; a folder that holds it may be replaced.
    """
    try:
        os.lstat(out)
        if is_folder(out) and (not any(out.iterdir()) or _may_go(out, replacing)):
            return
        wrong = f"holds no {replacing}" if replacing else "is not an empty folder"
        raise ConceptError(f"{out} exists and {wrong}; choose another --out")
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise ConceptError(f"cannot write {out}: {reason}; choose another --out") from problem
    try:
        try_to_make(out)
    except OSError as problem:
        raise ConceptError(
            f"cannot write in {out.parent}: {problem.strerror}; choose another --out"
        ) from problem


def temporary_folder(use: str) -> tempfile.TemporaryDirectory[str]:
    """Return a new folder for temporary files, removed when its context ends; StoreError: there is
    no place for it."""
    try:
        return tempfile.TemporaryDirectory(prefix=f"dqf-{use}-")
    except OSError as problem:
        raise StoreError(
            f"no folder for temporary files can be made: {problem.strerror}: let TMPDIR name one "
            "that can be written"
        ) from problem


def try_to_make(folder: Path) -> None:
    """Raise OSError if a folder does not exist and cannot be made; it is not made.

    Nor can one be made where a link leads nowhere.
    """
    folder = folder.absolute()
    if os.path.lexists(folder):
        folder.stat()
        return
    parent = next(parent for parent in folder.parents if os.path.lexists(parent))
    # Permissions do not say it: nobody may write in /proc, or on a read-only disk.
    with tempfile.TemporaryDirectory(dir=parent) as tried:
        (Path(tried) / max(folder.parts[1:], key=lambda part: len(os.fsencode(part)))).mkdir()


def _may_go(folder: Path, holding: str | None) -> bool:
    return holding is not None and not folder.is_symlink() and is_file(folder / holding)


@contextmanager
def new_folder(out: Path, *, replacing: str | None = None) -> Iterator[Path]:
    """Yield an empty folder that becomes `out` when the block ends, and vanishes if it fails.

    `replacing`: the name of a file; a folder at `out` that holds it goes when the new one is whole.
    ConceptError: the folder cannot be made, or `out` is occupied before or after the block.
    """
    refuse_occupied(out, replacing=replacing)
    out = out.absolute()  # the name of "." too
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name[:40]}.", dir=out.parent))
    except OSError as error:
        raise ConceptError(
            f"cannot write in {out.parent}: {error.strerror}; choose another --out"
        ) from error
    try:
        yield work
        _make_readable(work)
        refuse_occupied(out, replacing=replacing)
        # rename(2) replaces an empty folder and fails on any other.
        try:
            with _set_aside(out, replacing):
                work.rename(out)
        except OSError as error:
            raise ConceptError(
                f"cannot write {out}: {error.strerror}; choose another --out"
            ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _set_aside(out: Path, holding: str | None) -> Iterator[None]:
    """Move a folder that may go out of the way; it goes when the block ends, or comes back."""
    if not _may_go(out, holding):
        yield
        return
    with tempfile.TemporaryDirectory(prefix=f".{out.name[:40]}.", dir=out.parent) as aside:
        old = Path(aside) / "old"
        out.rename(old)
        try:
            yield
        except BaseException:
            old.rename(out)
            raise


def _make_readable(folder: Path) -> None:
    """Give a folder the usual permissions: mkdtemp and safetensors make it private."""
    mask = _umask()
    for path in [folder, *folder.rglob("*")]:
        path.chmod((0o777 if is_folder(path) else 0o666) & ~mask)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Return a regular file, open for reading.

    OSError: it does not exist, or is a folder, a device or a pipe, which could be read for ever.
    """
    # Without the flag, opening a pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, *, error: type[DqfError], most: int = MOST_BYTES) -> bytes:
    """Return a regular file's content; `error`: it does not exist or has more than `most` bytes."""
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
    """Return the value of a JSON file; `error`: it cannot be read, or is not JSON (`read_json`)."""
    return read_json(read_bytes(path, error=error), str(path), error=error)


@contextmanager
def whole_file(
    path: Path, *, error: type[DqfError] = StoreError, within: Path | None = None
) -> Iterator[BinaryIO]:
    """Yield a new file next to `path` that takes its place when the block ends, durable and whole.

    It vanishes if the block fails. `error`: `path` is anything but a regular file that may be
    written (`check_writable`), or cannot be written.
    """
    check_writable(path, error=error, within=within)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fchmod(file.fileno(), 0o666 & ~_umask())
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as problem:
        raise error(f"cannot write {path}: {problem.strerror or problem}") from problem


def write_whole(
    path: Path, content: bytes, *, error: type[DqfError] = StoreError, within: Path | None = None
) -> None:
    """Write a file whole and replace an existing one; `error` as for `whole_file`."""
    with whole_file(path, error=error, within=within) as file:
        file.write(content)


def check_writable(path: Path, *, error: type[DqfError], within: Path | None = None) -> None:
    """Raise `error` unless `path` is free, or a regular file that this process may write.

    A device, pipe or link would be replaced by the file, and the linked file would be lost. Links
    inside `within`, a folder that others may have made, are not followed either.
    """
    if within is not None:
        refuse_links(path.parent, within=within, error=error)
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        if not is_folder(path.parent):
            raise error(f"cannot write {path}: there is no folder {path.parent}") from None
        path = path.parent
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"cannot write {path}: {reason}") from problem
    else:
        if not stat.S_ISREG(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "no regular file"
            raise error(f"cannot write {path}: it is {kind}, give the path of a file")
    if not os.access(path, os.W_OK):
        raise error(f"cannot write {path}: permission is denied")


def check_output(path: Path, *, error: type[DqfError]) -> None:
    """Raise `error` if a file that a user names for output may not be written there.

    This is `check_writable`, and no file may lie in the folder of a run or an edit, whose own files
    it could replace.
    """
    check_writable(path, error=error)
    refuse_inside(path, error=error)


def refuse_inside(path: Path, *, error: type[DqfError]) -> None:
    """Raise `error` for a path in the folder of a run, an edit or a sweep, which may be replaced or
    removed as a whole."""
    for folder in path.absolute().resolve().parents:
        if is_own(folder):
            raise error(f"{path} is in a run's folder or an edit's, {folder}: write it elsewhere")


def is_own(folder: Path) -> bool:
    """Return whether a folder is a run, an edit or a sweep."""
    # A user's own plan may be called plan.json too.
    is_run = is_file(folder / "plan.json") and is_folder(folder / "parts")
    return is_run or is_file(folder / "edit.json") or is_file(folder / SWEEP)


def prepare_output(path: Path, *, error: type[DqfError]) -> None:
    """Make the folder of an output file and raise `error` if the file may not be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"cannot write in {path.parent}: {reason}; choose another --out") from problem
    check_output(path, error=error)


def refuse_links(folder: Path, *, within: Path, error: type[DqfError] = StoreError) -> None:
    """Raise `error` if a folder below `within` is reached through a link, which may lead
    elsewhere."""
    while folder != within and within in folder.parents:
        if os.path.islink(folder):
            raise error(f"cannot write in {folder}: it is a link, which is not followed")
        folder = folder.parent


def _umask() -> int:
    os.umask(mask := os.umask(0))  # the only way to read it
    return mask
