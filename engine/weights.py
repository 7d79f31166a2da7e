"""A hub model's files on this node: one process fetches them, the others wait for it.

The hub's own lock guards one file. N workers of a node that start together would still ask the hub
N times for every file, which it answers with 429; a lock on the whole model asks once.
"""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusers import DiffusionPipeline
from huggingface_hub import get_cached_repo_tree
from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE
from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

from engine.files import is_folder
from engine.registry import hub_id, is_commit

logger = logging.getLogger(__name__)


def model_folder(source: str) -> Path:
    """Return the folder of a diffusers folder or hub model, fetched first if files are missing.

    Asks nothing of the hub under `HF_HUB_OFFLINE`, nor for a commit whose files are all there.
    """
    if is_folder(source):
        return Path(source)
    repo, revision = hub_id(source)
    if HF_HUB_OFFLINE:
        return _download(repo, revision, local_files_only=True)
    with node_lock(repo):
        return _cached(repo, revision) or _download(repo, revision, local_files_only=False)


@contextmanager
def node_lock(name: str) -> Iterator[None]:
    """Hold a lock beside the hub's cache; the kernel releases it when its process dies."""
    path = Path(HF_HUB_CACHE) / ".locks" / f"dqf--{name.replace('/', '--')}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        # A read-only cache is read without one: nobody can fetch into it.
        logger.info("no lock at %s: %s", path, error)
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _cached(repo: str, revision: str | None) -> Path | None:
    """Return the folder of a commit whose files are all there; a branch may have moved on."""
    if revision is None or not is_commit(revision):
        return None
    try:
        # Without the commit's list of files diffusers takes whatever is there for all of it.
        get_cached_repo_tree(repo, revision=revision)
        return _download(repo, revision, local_files_only=True)
    except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
        return None


def _download(repo: str, revision: str | None, *, local_files_only: bool) -> Path:
    """Return the folder of diffusers' own choice of files: no duplicates, safetensors alone."""
    folder = DiffusionPipeline.download(
        repo,
        revision=revision,
        use_safetensors=True,
        local_files_only=local_files_only,
        # Named parts are left out: no family opens them.
        safety_checker=None,
        watermarker=None,
    )
    return Path(folder)
