"""Damaged Parquet files: the one that caused an error of DuckDB, and its repair."""

# pyright: reportUnknownMemberType=false
# pyarrow leaves parts of some methods without types.

import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from jobs.runs.parts import NOT_PARQUET
from schemas.errors import StoreError, first_line
from schemas.views import NOT_FINITE, ODD_WORDS

READING = (
    duckdb.InvalidInputException,
    duckdb.IOException,
    duckdb.InternalException,
    duckdb.FatalException,
    duckdb.SerializationException,
)
"""Errors of DuckDB on damaged files; a bare `duckdb.Error` where a footer or page header is
damaged."""


UNOPENED = re.compile(r'Cannot open file "(.+)": (.+)')
"""DuckDB's words for what is the machine's fault, not the file's."""


class DamagedRun(StoreError):
    """A run with a damaged file."""


@contextmanager
def damage_named(paths: Sequence[str], *, location: str, repair: str) -> Generator[None]:
    """Turn errors of DuckDB while it opens a run's own files into DamagedRun.

    `repair` is the user's remedy. FileNotFoundError: a file has disappeared meanwhile.
    """
    try:
        yield
    except duckdb.Error as error:
        if lost := [path for path in paths if not Path(path).exists()]:
            raise FileNotFoundError(lost[0]) from error
        if unopened := unopened_file(error):
            raise unopened from error
        path = damaged_file(paths, error)
        tables = f"the tables of run {location} cannot be used ({_reason(error)})"
        raise DamagedRun(f"{damage(path, error) if path else tables}: {repair}") from error


def unopened_file(error: duckdb.Error) -> StoreError | None:
    """Return the error of a sound file that cannot be opened now, as with too many open files."""
    found = UNOPENED.search(str(error))
    return StoreError("{} cannot be read: {}".format(*found.groups())) if found else None


def damaged_file(paths: Iterable[str], error: duckdb.Error) -> str | None:
    """Return the damaged file that caused an error; None if no file is damaged.

    A file that the error names is not read again. Only where the error cannot come from the
    statement is every page of the files read.
    """
    is_bare = type(error) is duckdb.Error
    if not is_bare and not isinstance(error, READING):
        return None
    paths, text = list(paths), str(error)
    # DuckDB names the file that it cannot read before those that it compares it with.
    named = sorted((path for path in paths if path in text), key=text.index)
    return next((path for path in named or paths if named or not _is_whole(path, is_bare)), None)


def damage(path: str, error: duckdb.Error) -> str:
    """Return the file and the damage in it that caused an error."""
    unfit = [f"{path} {what}" for what in (NOT_FINITE, ODD_WORDS)]
    said = [each for each in unfit if each in str(error)]
    return said[0] if said else f"{path} is damaged ({_reason(error)})"


def _is_whole(path: str, with_pages: bool) -> bool:
    """Return whether a file's footer, and its pages by their checksums, can be read."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for _ in file.iter_batches() if with_pages else ():
                pass
    except NOT_PARQUET:
        return False
    return True


def _reason(error: duckdb.Error) -> str:
    return first_line(error).removeprefix("Invalid Input Error: ").removeprefix("IO Error: ")
