"""Sums of a component's keys over general captions: the covariance anchor of ROME and MEMIT.

They depend on the model alone, so they are computed once and kept: emoji-sd's are shipped with it,
those of other models lie in the user's cache.

Shapes: D a projection's inputs (suffix `_DD`).
"""

import hashlib
import logging
from pathlib import Path

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from engine.editing.closed_form import KeyStatistics
from engine.editing.positions import PADS
from engine.editing.prompts import general_captions
from engine.editing.solve import (
    Collect,
    batches,
    first_reads,
    in_order,
    in_this_process,
    total,
)
from engine.files import is_file, write_whole
from engine.model.model import Diffusion
from engine.model.registry import EMBEDDED, REFERENCE, model_hash
from engine.model.vocabulary import Phrasebook
from schemas.edit_settings import KEPT_ROLES, EditSettings
from schemas.errors import StoreError

logger = logging.getLogger(__name__)

SHIPPED = {name: REFERENCE / f"{name}-statistics" for name in EMBEDDED}
"""Folders of the embedded models' sums, written by `engine.reference.statistics`."""
READING = 2
"""Version of how readers read keys; raise it when keys change, so that cached sums are not used."""


def general_sums(
    model: Diffusion, component: str, *, book: Phrasebook, collect: Collect | None = None
) -> KeyStatistics:
    """Return the sums over every object and style of the phrasebook, kept or not; their r is zero.

    `collect` reads them where they are not known yet, by default in this process.
    """
    name = file_name(component, book)
    if model.name in SHIPPED and is_file(SHIPPED[model.name] / name):
        return read_sums(SHIPPED[model.name] / name)
    path = _cache() / model_hash(model.name) / name
    kept = kept_sums(path)
    if kept is not None:
        return kept
    sums = computed_sums(model, component, book, collect)
    try:
        write_sums(path, sums)
    except (OSError, StoreError) as error:  # a cache that cannot be written is done without
        logger.info("statistics are not kept at %s: %s", path, error)
    return sums


def known_sums(
    model: Diffusion,
    settings: EditSettings,
    *,
    book: Phrasebook,
    collect: Collect | None = None,
) -> dict[str, KeyStatistics]:
    """Return the sums over general captions that an edit with these settings has use for.

    Without that anchor, they still give the sums that the components of `first_reads` keep.
    """
    if settings.general:
        read = in_order(model, settings.components)
    else:
        read = first_reads(model, settings.components) if settings.preserve else []
    return {names[0]: general_sums(model, names[0], book=book, collect=collect) for names in read}


def file_name(component: str, book: Phrasebook) -> str:
    """Return the file name of a component's sums, a hash of what was read and how."""
    texts = [caption.caption for caption in general_captions(book=book)]
    read = repr((texts, KEPT_ROLES, PADS)).encode()
    return f"{component}.{hashlib.blake2b(read, digest_size=6).hexdigest()}.safetensors"


def computed_sums(
    model: Diffusion, component: str, book: Phrasebook, collect: Collect | None = None
) -> KeyStatistics:
    """Return the sums read from the model."""
    captions = general_captions(book=book)
    parts = batches((component,), KEPT_ROLES, captions=captions)
    sums = total((collect or in_this_process(model))(parts, {}))
    assert sums is not None
    return sums


def write_sums(path: Path, sums: KeyStatistics) -> None:
    """Write the Gram matrix of sums, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weight = torch.tensor([sums.weight, sums.keys], dtype=torch.float64)
    write_whole(path, save({"gram": sums.gram_DD.contiguous(), "weight": weight}))


def kept_sums(path: Path) -> KeyStatistics | None:
    """Return the cached sums; None if there are none or the file is damaged."""
    if not is_file(path):
        return None
    try:
        return read_sums(path)
    except (SafetensorError, OSError, KeyError, ValueError):
        return None


def read_sums(path: Path) -> KeyStatistics:
    """Return the sums of a file of `write_sums`."""
    stored = load_file(path)
    weight, keys = stored["weight"].tolist()
    return KeyStatistics(cross={}, gram_DD=stored["gram"], weight=weight, keys=int(keys))


def _cache() -> Path:
    return user_cache_path("dqf") / f"statistics-{READING}"
