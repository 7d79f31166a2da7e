"""Hashes of files, those of large ones computed once and kept (no torch)."""

import hashlib
import logging
import time
from pathlib import Path

from platformdirs import user_cache_path

from engine.files import is_file, write_whole
from schemas.errors import StoreError

logger = logging.getLogger(__name__)

KEPT_FROM = 16 * 2**20
"""Bytes of a file from which on its hash is kept in the user's cache, by its path, size and
times."""
DIGEST_BYTES = 64
SETTLED_NS = 2 * 10**9
"""Age of a file from which on its hash is kept."""


def file_digest(file: Path) -> bytes:
    """Return a file's hash; that of a large file is computed once and kept."""
    found = file.stat()
    if found.st_size < KEPT_FROM:
        return _computed_digest(file)
    seen = [str(file.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    kept = _cache() / hashlib.blake2b(repr(seen).encode(), digest_size=16).hexdigest()
    if is_file(kept) and kept.stat().st_size == DIGEST_BYTES:
        return kept.read_bytes()
    digest = _computed_digest(file)
    # A file that has just been written may change again within the clock's tick.
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > SETTLED_NS:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, digest)
        except (OSError, StoreError) as error:  # a cache that cannot be written is done without
            logger.info("the hash of %s is not kept: %s", file, error)
    return digest


def _computed_digest(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "blake2b").digest()


def _cache() -> Path:
    return user_cache_path("dqf") / "digests"
