"""Sums of a component's keys over general captions: the anchor by covariance (ROME, MEMIT).

They depend on the model alone, so they are computed once and kept: emoji-sd's are shipped with it,
those of other models lie in the user's cache.

Shapes: D a projection's inputs (suffix `_DD`).
"""

import hashlib
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from engine.editing.closed_form import KeyStatistics
from engine.editing.positions import PADS
from engine.editing.prompts import general_captions
from engine.editing.solve import batches, in_order, sum_batches, total
from engine.files import is_file
from engine.model.model import Diffusion
from engine.model.registry import EMOJI_SD, model_hash
from engine.model.vocabulary import Phrasebook
from schemas.edit_settings import KEPT_ROLES, EditSettings

SHIPPED = EMOJI_SD.parent / "emoji-sd-statistics"
"""Those of emoji-sd, written by `engine.reference.statistics`."""


def general_sums(model: Diffusion, component: str, *, book: Phrasebook) -> KeyStatistics:
    """Return the sums over every object and style of the book, kept or not; their r is zero."""
    name = file_name(component, book)
    if model.name == "emoji-sd" and is_file(SHIPPED / name):
        return read_sums(SHIPPED / name)
    path = _cache() / model_hash(model.name) / name
    if not is_file(path):
        write_sums(path, computed_sums(model, component, book))
    return read_sums(path)


def known_sums(
    model: Diffusion, settings: EditSettings, *, book: Phrasebook
) -> dict[str, KeyStatistics]:
    """Return the sums over general captions that an edit with these settings has use for.

    Where they are no anchor they still say what the first component keeps.
    """
    names = [target.component.name for target in in_order(model, settings.components)]
    if not settings.general:
        names = names[:1] if settings.preserve else []
    return {name: general_sums(model, name, book=book) for name in names}


def file_name(component: str, book: Phrasebook) -> str:
    """Return the name of the file of a component's sums: it tells what was read and how."""
    texts = [caption.caption for caption in general_captions(book=book)]
    read = repr((texts, KEPT_ROLES, PADS)).encode()
    return f"{component}.{hashlib.blake2b(read, digest_size=6).hexdigest()}.safetensors"


def computed_sums(model: Diffusion, component: str, book: Phrasebook) -> KeyStatistics:
    """Return the sums read from the model."""
    captions = general_captions(book=book)
    parts = batches(component, KEPT_ROLES, captions=captions)
    sums = total(sum_batches(model, parts, {}))
    assert sums is not None
    return sums


def write_sums(path: Path, sums: KeyStatistics) -> None:
    """Write the Gram matrix of sums, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    weight = torch.tensor([sums.weight, sums.keys], dtype=torch.float64)
    save_file({"gram": sums.gram_DD.contiguous(), "weight": weight}, temporary)
    temporary.replace(path)


def read_sums(path: Path) -> KeyStatistics:
    """Return the sums of a file of `write_sums`."""
    stored = load_file(path)
    weight, keys = stored["weight"].tolist()
    return KeyStatistics(cross={}, gram_DD=stored["gram"], weight=weight, keys=int(keys))


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dqf" / "statistics"
