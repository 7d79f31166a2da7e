"""The images of a report, as text inside the page."""

import base64
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from engine.files import read_bytes
from jobs.report.words import PARTS
from jobs.runs.kept_images import KeptImages, LabeledImage, kept_images
from jobs.runs.png import CorruptImage, read_png
from jobs.runs.trace_run import TraceRun
from schemas.short_names import short_names

STRIPS = 64
"""The number of strips in a page, spread evenly over attributes."""
LOSSLESS = 96
"""Images up to this many pixels a side are stored without loss."""
QUALITY = 82
WEBP_SIDE = 16_383
"""The most pixels that a side of a WebP image may have."""
DONE = {
    "restore": "restored",
    "corrupt": "corrupted",
    "zero": "zeroed",
    "mean": "averaged",
    "resample": "resampled",
    "swap": "swapped",
    "other-seed": "from another seed",
    "other-caption": "from another caption",
    "other-draw": "from another corrupted draw",
    "matched": "from its counterfactual",
}
"""How the component of the best and of the worst image was patched, by intervention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownImage:
    """One image of a strip."""

    source: str
    """A data: URI."""
    title: str
    detail: str
    """The patched component, and the score."""
    alt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """The images of a unit."""

    caption: str
    subject: str
    attribute: str
    part: str
    seed: int
    measure: str
    images: tuple[ShownImage, ...]


def data_uri(image: Image.Image) -> str:
    """Return an image as a data: URI: WebP, lossless if it is small."""
    file = io.BytesIO()
    is_small = max(image.size) <= LOSSLESS
    image.convert("RGB").save(file, format="WEBP", lossless=is_small, quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def picture_uri(path: Path) -> str:
    """Return a picture's file as a data: URI; CorruptImage if it cannot be shown."""
    image = read_png(read_bytes(path, error=CorruptImage))
    if max(image.size) > WEBP_SIDE:
        raise CorruptImage(f"{path} has more than {WEBP_SIDE} pixels a side")
    return data_uri(image)


def strips(run: TraceRun) -> list[Strip]:
    """Return at most STRIPS strips of a run's kept images."""
    names = short_names([component.name for component in run.components])
    kept = kept_images(run)
    share = max(1, STRIPS // max(1, len({(k.attribute, k.part) for k in kept})))
    seen: Counter[tuple[str, str]] = Counter()
    chosen: list[Strip] = []
    for images in kept:
        seen[images.attribute, images.part] += 1
        if seen[images.attribute, images.part] <= share:
            chosen.append(_strip(images, names))
    return chosen


def _strip(kept: KeptImages, names: Mapping[str, str]) -> Strip:
    return Strip(
        caption=kept.caption,
        subject=kept.subject,
        attribute=kept.attribute,
        part=kept.part,
        seed=kept.seed,
        measure=kept.measure,
        images=tuple(_shown(kept, image, names) for image in kept.images),
    )


def _shown(kept: KeptImages, image: LabeledImage, names: Mapping[str, str]) -> ShownImage:
    what = ""
    if image.component is not None:
        what = names.get(image.component, image.component)
        if image.token not in (None, "all"):
            what += f" @{image.token}"
    title = f"{image.role} {DONE[kept.intervention]}" if what else image.role
    score = f"{image.score:.3f}".replace("-", "\N{MINUS SIGN}")
    return ShownImage(
        source=data_uri(image.image),
        title=title,
        detail=f"{what}: {score}" if what else score,
        alt=f"{title} image of \N{LEFT DOUBLE QUOTATION MARK}{kept.caption}"
        f"\N{RIGHT DOUBLE QUOTATION MARK}, {PARTS.get(kept.part, kept.part)}"
        + (f", {what}" if what else "")
        + f", score {score}",
    )
