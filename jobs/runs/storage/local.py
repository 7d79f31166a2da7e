"""Storage in a folder of a local or shared file system."""

import contextlib
import errno
import os
import re
import stat
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

from engine.files import open_regular, refuse_links
from jobs.runs.storage.interface import StoredFile, not_found
from schemas.errors import StoreError

LEFTOVER_AGE_S = 3600.0
"""A writer holds its temporary file for seconds; one this old has no writer any more."""
NO_ANONYMOUS_FILE = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT}
"""Errors of a kernel or file system without O_TMPFILE, such as NFS, or without /proc."""
TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")
"""A named temporary file: a dot, the file's own name, and mkstemp's eight characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalStorage:
    """A folder of a local or shared file system."""

    location: str
    """Its absolute path."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a file, durable and whole; False if it exists, whose content then stays.

        StoreError: a folder, a pipe or a broken link stands there, which no reader takes for it.
        """
        path = self._own_path(name)
        with _user_errors(path):
            _make_folder(path.parent)
            created = _publish(path, content)
            _sync_folder(path.parent)
        if not created and _is_irregular(path):
            raise self._missing(name)
        return created

    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError if there is none."""
        path = self._path(name)
        try:
            with _user_errors(path), open_regular(path) as file:
                return file.read()
        except FileNotFoundError as error:
            raise self._missing(name) from error

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        path = self._path(name)
        with _user_errors(path):
            return path.is_file()

    def files(self, folder: str) -> list[StoredFile]:
        """Return the files directly in `folder`, by name, without writers' temporary files.

        A folder or pipe that is named as a file is among them: reading it raises StoreError.
        """
        path = self._path(folder)
        try:
            with _user_errors(path), os.scandir(path) as entries:
                stored = list(_stored_files(entries, prefix=f"{folder}/" if folder else ""))
        except FileNotFoundError:
            return []
        return sorted(stored, key=attrgetter("name"))

    def holds_anything(self) -> bool:
        """Return whether there is anything but writers' temporary files."""
        path = self._path("")
        try:
            with _user_errors(path), os.scandir(path) as entries:
                return any(not TEMPORARY.fullmatch(entry.name) for entry in entries)
        except FileNotFoundError:
            return False

    def remove(self, name: str) -> None:
        """Remove a file; a missing one is fine."""
        path = self._own_path(name)
        with _user_errors(path):
            path.unlink(missing_ok=True)

    def move(self, name: str, new: str) -> None:
        """Rename a file, over any at `new`; a missing one is fine."""
        path, target = self._own_path(name), self._own_path(new)
        with _user_errors(target):
            if not path.is_file():
                return
            _make_folder(target.parent)
            with contextlib.suppress(FileNotFoundError):
                path.rename(target)
            _sync_folder(target.parent)
            _sync_folder(path.parent)

    def local(self, names: Sequence[str]) -> list[Path]:
        """Return the files' paths; FileNotFoundError if one is gone."""
        for name in names:
            if not self.exists(name):
                raise self._missing(name)
        return [self._path(name) for name in names]

    def remove_leftovers(self) -> None:
        """Remove temporary files an hour away from the file system's own clock, either way."""
        root = Path(self.location)
        with _user_errors(root):
            leftovers = list(_temporary_files(root))
            now = _clock(root) if leftovers else 0.0
            for path in leftovers:
                with contextlib.suppress(FileNotFoundError):
                    # One from the future was written before the clock was set back.
                    if abs(now - path.stat().st_mtime) > LEFTOVER_AGE_S:
                        path.unlink()

    def _path(self, name: str) -> Path:
        return Path(self.location, name)

    def _own_path(self, name: str) -> Path:
        """Return the path of a file to write; StoreError if a link would lead out of the run."""
        path = self._path(name)
        refuse_links(path.parent, within=Path(self.location))
        return path

    def _missing(self, name: str) -> Exception:
        """Return the error of a missing file, or of a path that is not a regular file."""
        path = self._path(name)
        if os.path.lexists(path):
            return StoreError(f"cannot use {path}: it is not a regular file: remove it")
        return not_found(str(path))


def _is_irregular(path: Path) -> bool:
    """Return whether something other than a file is at a path, which may be gone meanwhile."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not path.is_file()


@contextlib.contextmanager
def _user_errors(path: Path) -> Generator[None]:
    try:
        yield
    except (FileNotFoundError, FileExistsError):  # answers, not faults
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"cannot use {path}: {reason or error}") from error


def _stored_files(entries: Iterable[os.DirEntry[str]], *, prefix: str) -> Iterator[StoredFile]:
    for entry in entries:
        if entry.name.startswith(".") or (entry.is_dir() and "." not in entry.name):
            continue
        try:
            # A link that leads nowhere is itself listed.
            found = entry.stat(follow_symlinks=entry.is_file())
        except FileNotFoundError:  # another process removed it since
            continue
        yield StoredFile(name=prefix + entry.name, size=found.st_size, modified=found.st_mtime)


def _temporary_files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            if TEMPORARY.fullmatch(name):
                yield Path(folder, name)


def _clock(folder: Path) -> float:
    with tempfile.TemporaryFile(prefix=".clock.", dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def _publish(path: Path, content: bytes) -> bool:
    try:
        return _publish_anonymous(path, content)
    except OSError as error:
        if error.errno not in NO_ANONYMOUS_FILE:
            raise
    return _publish_named(path, content)


def _publish_anonymous(path: Path, content: bytes) -> bool:
    descriptor = os.open(path.parent, os.O_WRONLY | os.O_TMPFILE, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        _write(file, content)
        try:
            # Only when given a descriptor does Python ask link to follow /proc's symbolic link;
            # which one does not matter, as the path is absolute.
            os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor)
        except FileExistsError:
            return False
    return True


def _publish_named(path: Path, content: bytes) -> bool:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _write(file, content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            # Over NFS the answer to a link that was made may get lost and the second try fail.
            return os.stat(temporary).st_nlink > 1
    finally:
        os.unlink(temporary)
    return True


def _write(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fchmod(file.fileno(), 0o644)
    os.fsync(file.fileno())


def _make_folder(folder: Path) -> None:
    missing = takewhile(lambda path: not path.is_dir(), (folder, *folder.parents))
    for path in reversed([*missing]):
        # If a file stands there, opening the folder says so in the user's terms.
        with contextlib.suppress(FileExistsError):
            try:
                path.mkdir()
            except FileNotFoundError as error:  # /proc and its like
                raise StoreError(f"cannot use {path}: no folder can be made there") from error
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
