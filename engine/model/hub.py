"""A hub model's files on this node: one process fetches them, the others wait for it.

The hub's own lock guards one file. N workers of a node that start together would still ask the hub
N times for every file, which it answers with 429; with a lock on the whole model one of them asks.
"""

import fcntl
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import get_cached_repo_tree, snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import tqdm

from engine.files import is_folder
from engine.model.registry import checked_source, hub_id, split_variant
from engine.model.weight_files import no_variant, read_json, weight_patterns
from schemas.errors import ModelUnavailable, first_line

logger = logging.getLogger(__name__)

CONFIGS = ("model_index.json", "*/*.json", "*/*.txt", "*/*.model", "*/*.jinja")
"""Files that describe a model: configs, and the files of tokenizers, with chat templates."""
UNREAD_PARTS = ("safety_checker", "image_encoder", "feature_extractor", "watermarker")
"""Parts that no family opens."""


class _Silent(tqdm):
    """Shows no progress bar: configs are small."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})


def config_folder(name: str) -> Path:
    """Return a folder with the configs and tokenizers of the named model.

    ModelUnavailable: there is no such folder or hub model, or it cannot be fetched.
    """
    source = checked_source(name)
    if is_folder(source):
        return Path(source)
    return _snapshot(name, source, CONFIGS, bar=_Silent)


def model_folder(name: str) -> Path:
    """Return the folder of the named model; missing files are fetched first.

    The hub is not asked under `HF_HUB_OFFLINE`, nor for a commit whose files are all cached.
    ModelUnavailable: there is no such folder or hub model, or it cannot be fetched. PartError: a
    part has no weights in a format that dqf reads.
    """
    source = checked_source(name)
    if is_folder(source):
        return Path(source)
    repo, _ = hub_id(source)
    with node_lock(repo):
        folder = _snapshot(name, source, CONFIGS, bar=_Silent)
        commit, (_, variant) = f"{repo}@{folder.name}", split_variant(name)
        weights = list(_weights(commit, folder, variant=variant))
        if variant is not None and not any(f".{variant}." in pattern for pattern in weights):
            raise no_variant(variant)
        return _snapshot(name, commit, (*CONFIGS, *weights), bar=tqdm)


def _weights(source: str, folder: Path, *, variant: str | None) -> Iterator[str]:
    """Yield patterns of the weights of every part that `model_index.json` names."""
    repo, revision = hub_id(source)
    try:
        names = [file.path for file in get_cached_repo_tree(repo, revision=revision)]
    except CachedRepoTreeNotFoundError:  # another library filled the cache
        names = [str(file.relative_to(folder)) for file in folder.glob("*/*")]
    for part in read_json(folder / "model_index.json"):
        if part not in UNREAD_PARTS:
            inside = [
                name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")
            ]
            yield from weight_patterns(part, inside, wanted=variant)


def _snapshot(name: str, source: str, patterns: Sequence[str], *, bar: type[tqdm]) -> Path:
    repo, revision = hub_id(source)
    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=list(patterns),
            ignore_patterns=[f"{part}/*" for part in UNREAD_PARTS],
            local_files_only=HF_HUB_OFFLINE,
            tqdm_class=bar,
        )
    except Exception as error:  # the hub's, of the network, or of a disk
        raise ModelUnavailable(f"model {name!r} cannot be fetched: {_why(error)}") from error
    return Path(folder)


def _why(error: Exception) -> str:
    if isinstance(error, LocalEntryNotFoundError):
        reason = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "the hub cannot be reached"
        return f"{reason}, and the cache {HF_HUB_CACHE} lacks it"
    if isinstance(error, GatedRepoError):
        return "access is on request: ask for it on the hub's page and set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return "the hub has no such revision of it"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such folder, and the hub has no such model or keeps it private"
    return first_line(error)


@contextmanager
def node_lock(name: str) -> Iterator[None]:
    """Hold a lock in the hub's cache; the kernel releases it when the process dies."""
    path = Path(HF_HUB_CACHE) / ".locks" / f"dqf--{name.replace('/', '--')}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        # A read-only cache needs no lock: no process can fetch into it.
        logger.info("no lock at %s: %s", path, error)
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def source_folder(model: str) -> Path:
    """Return the folder that a model's name stands for; the local snapshot of a hub model."""
    return model_folder(model)
