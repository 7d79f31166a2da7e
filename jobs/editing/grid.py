"""The picture of an edit: one row per prompt, with each image before the edit next to the one
after."""

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CELL = 160
"""Pixels of an image in the grid."""
MARGIN, LABEL, HEADING = 6, 190, 22


def draw_grid(
    labels: Sequence[str],
    *,
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    file: BinaryIO,
) -> None:
    """Write the grid into `file` as PNG: one label a row.

    Images are `(row, seed, height, width, 3)`.
    """
    rows, seeds = before.shape[:2]
    width = LABEL + 2 * seeds * (CELL + MARGIN) + seeds * MARGIN
    grid = Image.new("RGB", (width, HEADING + rows * (CELL + MARGIN)), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(size=13)
    for row, label in enumerate(labels):
        top = HEADING + row * (CELL + MARGIN)
        draw.multiline_text((MARGIN, top + CELL // 3), _wrap(label), fill="black", font=font)
        for seed in range(seeds):
            for column, (name, images) in enumerate((("before", before), ("after", after))):
                left = LABEL + (2 * seed + column) * (CELL + MARGIN) + seed * MARGIN
                grid.paste(_enlarge(images[row, seed]), (left, top))
                if row == 0:
                    draw.text((left, 3), name, fill="black", font=font)
    grid.save(file, format="PNG")


def _enlarge(pixels: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(pixels)
    # Small drawings keep their pixels; photographs are reduced smoothly.
    small = max(image.size) <= CELL
    resample = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    return image.resize((CELL, CELL), resample)


def _wrap(label: str, *, columns: int = 26) -> str:
    lines = [""]
    for word in label.split():
        if lines[-1] and len(lines[-1]) + len(word) >= columns:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
