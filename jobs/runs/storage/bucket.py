"""A run's files in a bucket: create is a conditional put, so that the first writer wins."""

# pyright: reportUnknownMemberType=false
# obstore leaves parts of some methods without types.

import contextlib
import hashlib
import re
import time
from collections import defaultdict
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import GCSStore, S3Store
from platformdirs import user_cache_path

from jobs.runs.storage.interface import StoredFile, not_found
from jobs.runs.storage.local import LocalStorage
from schemas.errors import StoreError, first_line

if TYPE_CHECKING:
    from obstore import ObjectMeta

CONNECT_S = 5.0
"""Seconds that a bucket's host may take to accept a connection."""
SILENCE_S = 8.0
"""Seconds that a bucket may take to begin its answer, including the upload of a small file."""
RETRY_S = 10.0
"""No request is tried again later than this, so that a dead bucket is known within 20 s."""
SLOWEST_UPLOAD = 500_000
"""Bytes a second below which an upload counts as stuck."""
CONFLICTS = 6
"""Attempts at creating a file that a bucket refuses although it does not exist."""
CONNECTIONS = 16
"""Requests under way at once while files are mirrored; up to so many files are checked one by
one."""
METADATA_SERVICE = "169.254.169.254"
"""The host at which clouds give credentials, used when the environment has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketStorage:
    """A prefix of an S3 or Google Cloud Storage bucket, or of a compatible one."""

    location: str
    """Its URL without a trailing slash."""
    store: S3Store | GCSStore
    """The connection; credentials, region and endpoint are those of the environment."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a file, durable and whole; False if it exists, whose content then stays.

        False as well if the answer to an earlier attempt of this call was lost on its way.
        """
        store = self.store
        silence_s = len(content) / SLOWEST_UPLOAD
        if silence_s > SILENCE_S:
            store = _connect(self.location, silence_s=silence_s)
        with self._requests(name):
            for attempt in range(CONFLICTS):
                try:
                    obstore.put(store, name, content, mode="create")
                    return True
                except AlreadyExistsError:
                    # S3 also answers so (409) to a write that met a delete: no file, try again.
                    if self.exists(name):
                        return False
                time.sleep(0.1 * 2**attempt)
        raise StoreError(f"cannot write {self._url(name)}: the bucket reports conflicts only")

    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError if there is none."""
        with self._requests(name):
            return bytes(obstore.get(self.store, name).bytes())

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        try:
            with self._requests(name):
                obstore.head(self.store, name)
        except FileNotFoundError:
            return False
        return True

    def files(self, folder: str) -> list[StoredFile]:
        """Return the files directly in `folder`, by name."""
        stored = [
            StoredFile(
                name=meta["path"], size=meta["size"], modified=meta["last_modified"].timestamp()
            )
            for meta in self._listing(folder)
        ]
        return sorted(stored, key=attrgetter("name"))

    def holds_anything(self) -> bool:
        """Return whether there is an object under the prefix."""
        try:
            found = obstore.list_with_delimiter(self.store, "")
        except (FileNotFoundError, BaseError) as error:
            raise self._refusal(error) from error
        return bool(found["objects"] or found["common_prefixes"])

    def remove(self, name: str) -> None:
        """Remove a file; a missing one is fine."""
        with contextlib.suppress(FileNotFoundError), self._requests(name):
            obstore.delete(self.store, name)

    def move(self, name: str, new: str) -> None:
        """Copy a file, over any at `new`, and remove it; a missing one is fine."""
        with contextlib.suppress(FileNotFoundError), self._requests(name):
            obstore.rename(self.store, name, new)

    def local(self, names: Sequence[str]) -> list[Path]:
        """Return copies in this machine's cache; missing ones are made first.

        A copy's path holds the file's version, so that a name moved away and created again is
        mirrored again; copies of files that are gone from the bucket are not pruned.
        """
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            versions = self._versions(names, pool)
            return list(pool.map(self._mirrored, names, [versions[name] for name in names]))

    def remove_leftovers(self) -> None:
        """Do nothing: an upload that was cut off leaves no file in a bucket."""

    def _mirrored(self, name: str, version: str) -> Path:
        mirror = LocalStorage(location=str(_cache_folder(self.location)))
        file = PurePosixPath(name)
        copy = str(file.parent / version / file.name)
        if not mirror.exists(copy):
            mirror.create(copy, self.read(name))
        return Path(mirror.location, copy)

    def _versions(self, names: Sequence[str], pool: ThreadPoolExecutor) -> dict[str, str]:
        folders: dict[str, list[str]] = defaultdict(list)
        for name in names:
            folders[name.rpartition("/")[0]].append(name)
        versions: dict[str, str] = {}
        for folder, inside in folders.items():
            # A listing shows a thousand files a request, but all of the folder.
            few = len(inside) <= CONNECTIONS
            metas = pool.map(self._head, inside) if few else self._listing(folder)
            versions.update((meta["path"], _version(meta)) for meta in metas)
        for name in names:
            if name not in versions:
                raise not_found(self._url(name))
        return versions

    def _head(self, name: str) -> "ObjectMeta":
        with self._requests(name):
            return obstore.head(self.store, name)

    def _listing(self, folder: str) -> "Sequence[ObjectMeta]":
        try:
            return obstore.list_with_delimiter(self.store, folder)["objects"]
        except (FileNotFoundError, BaseError) as error:
            raise self._refusal(error) from error

    def _url(self, name: str) -> str:
        return f"{self.location}/{name}"

    @contextlib.contextmanager
    def _requests(self, name: str) -> Generator[None]:
        try:
            yield
        except FileNotFoundError:
            # A missing bucket answers like a missing file, but cannot be listed.
            self._listing(".none")
            raise not_found(self._url(name)) from None
        except BaseError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> StoreError:
        return StoreError(f"cannot use {self.location}: {_reason(error)}")


def open_bucket(location: str) -> BucketStorage:
    """Return the storage at a URL of a known scheme, without asking it."""
    return BucketStorage(location=location, store=_connect(location, silence_s=SILENCE_S))


def _connect(location: str, *, silence_s: float) -> S3Store | GCSStore:
    scheme, _, rest = location.partition("://")
    bucket, _, prefix = rest.partition("/")
    try:
        return (S3Store if scheme == "s3" else GCSStore)(
            bucket,
            prefix=prefix or None,
            client_options={
                # Only an endpoint from the environment may use plain http.
                "allow_http": True,
                "connect_timeout": timedelta(seconds=CONNECT_S),
                "read_timeout": timedelta(seconds=silence_s),
                "timeout": timedelta(hours=1),
            },
            retry_config={"max_retries": 6, "retry_timeout": timedelta(seconds=RETRY_S)},
        )
    except BaseError as error:
        raise StoreError(f"cannot use {location}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    # Of an answer only its status and code are shown: the rest repeats the access key's name.
    line = first_line(error).split("<")[0]
    if METADATA_SERVICE in line:
        return "the environment holds no credentials for it"
    status = re.search(r"status code: (\d+)", line)
    if status is None:
        endpoint = re.search(r"https?://[^/@\s]+(?=[/\s])", line)
        reason = line.rpartition(" - ")[2]
        return f"{endpoint[0]} does not answer ({reason})" if endpoint else reason
    code = re.search(r"<Code>(\w+)</Code>", str(error))
    shown = f"{status[1]} {code[1]}" if code else status[1]
    if status[1] in ("401", "403"):
        return f"access is refused ({shown}), check the credentials in the environment"
    if status[1] == "404":
        return f"there is no such bucket ({shown})"
    return f"the bucket answers {shown}"


def _version(meta: "ObjectMeta") -> str:
    identity = meta["e_tag"] or meta["last_modified"].isoformat()
    return hashlib.sha256(f"{meta['size']} {identity}".encode()).hexdigest()[:16]


def _cache_folder(location: str) -> Path:
    return user_cache_path("dqf") / hashlib.sha256(location.encode()).hexdigest()[:16]
