"""Files and folders: whether they are there."""

import os


def is_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is there; text that cannot be a path, as SQL, is none.

    `Path.is_file` raises OSError for a name of more than 255 bytes, and ValueError for a null byte.
    """
    return os.path.isfile(path)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder is there; text that cannot be a path is none."""
    return os.path.isdir(path)
