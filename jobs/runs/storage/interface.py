"""The interface of a run's storage.

A file appears whole or not at all, the first writer of a name wins, and nothing is overwritten.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file as a listing shows it."""

    name: str
    """Relative to the storage's root, with forward slashes."""
    size: int
    """In bytes."""
    modified: float
    """Seconds since the epoch, by the storage's own clock."""


class Storage(Protocol):
    """A folder of immutable files; names that begin with a dot are its own."""

    @property
    def location(self) -> str:
        """The absolute path or URL with which another process opens the same storage."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Write a file, durable and whole; False if it exists, whose content then stays."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError if there is none."""
        ...

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        ...

    def files(self, folder: str) -> list[StoredFile]:
        """Return the files directly in `folder` by name; "" is the root, a missing one has none."""
        ...

    def holds_anything(self) -> bool:
        """Return whether there is a file or a folder, besides the storage's own."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; a missing one is fine."""
        ...

    def move(self, name: str, new: str) -> None:
        """Rename a file, over any at `new`; a missing one is fine: another process moved it."""
        ...

    def local(self, names: Sequence[str]) -> list[Path]:
        """Return paths on this machine that hold these files; FileNotFoundError if one is gone."""
        ...

    def remove_leftovers(self) -> None:
        """Remove temporary files that killed writers left."""
        ...


def not_found(path: str) -> FileNotFoundError:
    """Return the error of a missing file."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
