"""Images of a run that are kept so that people can see what was scored; no score is read from them.

The rule: of the first four captions of each attribute, in the plan's order, the unit of the first
seed and the first noise draw, every slab of it. Of each such unit the clean and the corrupted
image, and of the restored ones (if the plan restores; else of its first intervention) those with
the highest and the lowest score against the target (if the plan scores it; else its first score);
of equal ones the first. A unit's images are one file, written before its scores are committed.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import Field

from engine.files import read_bytes
from jobs.runs.png import CorruptImage, read_png
from jobs.runs.trace_run import TraceRun
from schemas.documents import parsed, read_json
from schemas.intervention import Intervention
from schemas.unit import Unit

if TYPE_CHECKING:
    from engine.tracing.kept import ImageSelector, Kept

CAPTIONS = 4
"""Captions of an attribute whose images are kept."""
SIDE = 256
"""Largest side of a kept image in pixels; larger images are scaled down."""
FOLDER = "images"
IMAGE_NAME = re.compile(rf"{FOLDER}/(?P<unit_id>[0-9a-f]{{32}})\.png")
LABELS = "dqf"
"""Key of the PNG's text chunk that describes its images as JSON."""
MOST_IMAGES = 8
"""Number of images in a unit's file: clean, corrupted, best and worst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabeledImage:
    """One image of a unit."""

    role: str
    """`clean`, `corrupted`, or the `best` or `worst` of the patched runs."""
    score: float
    """Score of the image by the measure that its unit's `measure` names."""
    component: str | None
    """The patched component; None for the clean and the corrupted run, as are the next fields."""
    token: str | None
    step_start: int | None
    step_stop: int | None
    image: Image.Image


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptImages:
    """The images of one unit: clean, corrupted, and the best and worst patched ones if any."""

    unit_id: str
    caption: str
    subject: str
    attribute: str
    part: str
    seed: int
    draw: int
    measure: str
    """The measure by which the best and the worst were chosen."""
    intervention: str
    images: tuple[LabeledImage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Label:
    """Description of an image in a file, as in LabeledImage."""

    role: Literal["clean", "corrupted", "best", "worst"]
    score: Annotated[float, Field(allow_inf_nan=False)]
    component: str | None
    token: str | None
    step_start: int | None
    step_stop: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Labels:
    """Description of a unit in a file, as in KeptImages."""

    unit_id: str
    caption: str
    subject: str
    attribute: str
    part: str
    seed: int
    draw: int
    measure: str
    intervention: Intervention
    images: Annotated[tuple[_Label, ...], Field(min_length=1, max_length=MOST_IMAGES)]


def image_name(unit_id: str) -> str:
    """Return the name of the file of a unit's images."""
    return f"{FOLDER}/{unit_id}.png"


def picked_units(run: TraceRun) -> dict[str, Unit]:
    """Return the units whose images are kept, by id, in the plan's order."""
    units, ids, seen = run.units, run.unit_ids, Counter[str]()
    per_caption = len(units) // len(run.plan.captions)
    picked: dict[str, Unit] = {}
    for number, caption in enumerate(run.plan.captions):
        seen[caption.attribute] += 1
        if seen[caption.attribute] > CAPTIONS:
            continue
        # A caption's units begin with all slabs of its first seed, draw and noise.
        first = number * per_caption
        for ordinal in range(first, first + len(units.slabs)):
            picked[ids[ordinal]] = units[ordinal]
    return picked


def keep_images(run: TraceRun, unit_id: str, unit: Unit, selector: "ImageSelector") -> None:
    """Write a unit's kept images unless their file exists; StoreError if that fails."""
    run.check_there()
    run.storage.create(image_name(unit_id), _strip(unit_id, unit, selector))


def kept_images(run: TraceRun) -> list[KeptImages]:
    """Return the kept images of a run in the plan's order, without those of damaged files.

    `image_faults` names the damaged files.
    """
    there = {file.name for file in run.storage.files(FOLDER)}
    names = {u: name for u in picked_units(run) if (name := image_name(u)) in there}
    paths = run.storage.local(list(names.values()))
    return list(_whole(dict(zip(names, paths, strict=True))))


def read_images(content: bytes, unit_id: str) -> KeptImages:
    """Return the images of a unit's file; CorruptImage if it is damaged or another unit's."""
    strip = read_png(content, most_pixels=MOST_IMAGES * SIDE**2)
    document = read_json(strip.info.get(LABELS, ""), "its label", error=CorruptImage)
    labels = parsed(_Labels, document, "its label", error=CorruptImage)
    if labels.unit_id != unit_id:
        raise CorruptImage(f"holds the images of unit {labels.unit_id}")
    width = strip.width // len(labels.images)
    boxes = [(n * width, 0, (n + 1) * width, strip.height) for n in range(len(labels.images))]
    images = tuple(
        LabeledImage(
            role=label.role,
            score=label.score,
            component=label.component,
            token=label.token,
            step_start=label.step_start,
            step_stop=label.step_stop,
            image=strip.crop(box),
        )
        for label, box in zip(labels.images, boxes, strict=True)
    )
    return KeptImages(
        unit_id=labels.unit_id,
        caption=labels.caption,
        subject=labels.subject,
        attribute=labels.attribute,
        part=labels.part,
        seed=labels.seed,
        draw=labels.draw,
        measure=labels.measure,
        intervention=labels.intervention,
        images=images,
    )


def _whole(paths: dict[str, Path]) -> Iterator[KeptImages]:
    for unit_id, path in paths.items():
        try:
            yield read_images(read_bytes(path, error=CorruptImage), unit_id)
        except CorruptImage:
            continue


def _strip(unit_id: str, unit: Unit, selector: "ImageSelector") -> bytes:
    """Return the images side by side as PNG, with their description as its text."""
    kept = list(selector.kept.values())
    images = [_small(image) for image in kept]
    width, height = images[0].size
    strip = Image.new("RGB", (width * len(images), height))
    for number, image in enumerate(images):
        strip.paste(image, (number * width, 0))
    labels = _Labels(
        unit_id=unit_id,
        caption=unit.caption.caption,
        subject=unit.caption.subject,
        attribute=unit.caption.attribute,
        part=unit.part.value,
        seed=unit.seed,
        draw=unit.draw,
        measure=selector.measure,
        intervention=selector.intervention,
        images=tuple(map(_label, kept)),
    )
    text = PngInfo()
    text.add_text(LABELS, json.dumps(asdict(labels)))
    file = io.BytesIO()
    strip.save(file, format="PNG", pnginfo=text)
    return file.getvalue()


def _label(kept: "Kept") -> _Label:
    patch = kept.patch
    return _Label(
        role=kept.role.value,
        score=kept.score,
        component=patch and patch.component,
        token=patch and patch.token,
        step_start=patch and patch.window[0],
        step_stop=patch and patch.window[1],
    )


def _small(kept: "Kept") -> Image.Image:
    from engine.model.sampling import pixels_of  # it imports torch, which readers do not need

    image = Image.fromarray(pixels_of(kept.image_CHW))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image
