"""Opening the storage at a path or bucket URL."""

import os
import re
from pathlib import Path

from jobs.runs.storage.interface import Storage
from jobs.runs.storage.local import LocalStorage
from schemas.errors import StoreError
from schemas.printable import shown

BUCKET_URL = re.compile(r"(s3|gs)://([a-z0-9][a-z0-9._-]+)(?:/(?!\.\.?(?:/|$))[^/?#]+)*/*")
"""Scheme, bucket and prefix; credentials have no place in it."""


def open_storage(given: str | Path) -> Storage:
    """Return the storage at a path or bucket URL, without asking it; StoreError for a bad URL."""
    location = str(given) if isinstance(given, str | Path) else ""  # pyright: ignore
    if not location.strip():
        raise StoreError(f"give a run's folder or URL as text, not {shown(given)}")
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", location):
        return LocalStorage(location=os.path.abspath(location))
    match = BUCKET_URL.fullmatch(location)
    if match is None:
        # Before an @ or after a ? may stand a secret, which no message shows.
        url = location if not re.search("[@?#]", location) else "this URL"
        raise StoreError(
            f"{url} is not a storage: give a path, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, "
            "with credentials in the environment"
        )
    from jobs.runs.storage.bucket import open_bucket  # a run on disk does without its library

    return open_bucket(location.rstrip("/"))
