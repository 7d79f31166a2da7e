"""Scenes as images: sprites placed on the style's ground, made when a batch asks for them.

Shapes: N images, P sprites, C channels, H and W pixels (suffixes `_NCHW`, `_P4HW`).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image

from engine.reference.sprites import CANVAS, OVERSAMPLE, ground_color
from engine.reference.vocabulary import COLORS, SIZE, STYLES, Scene, drawings

SMALL = SIZE // 2
"""Side in pixels of a sprite that is not alone in its image."""
PLACES: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((0, 0),),
    2: ((SMALL // 2, 0), (SMALL // 2, SMALL)),
    3: ((0, SMALL // 2), (SMALL, 0), (SMALL, SMALL)),
}
"""Top left pixel (row, column) of each sprite by their number: side by side, or as a pyramid."""
FIXED = ((1.0, 0.0, 0.0), (0.9, -1.0, 0.0), (0.9, 1.0, 0.0))
"""Scale and shift (pixels) of the denoisers' images: few, so that small models become sharp."""

_STYLE_ROWS = {style: row for row, style in enumerate(STYLES)}
_COLOR_ROWS = {color: row for row, color in enumerate(COLORS)}
_DRAWING_ROWS = {drawing: row for row, drawing in enumerate(drawings())}


def parts(scene: Scene) -> list[tuple[int, int, int]]:
    """Return drawing, style and color of each sprite in reading order, as rows of the sprites."""
    style = _STYLE_ROWS[scene.style]
    first = (_DRAWING_ROWS[scene.object, scene.action], style, _COLOR_ROWS[scene.color])
    if scene.second:
        return [first, (_DRAWING_ROWS[scene.second, ""], style, _COLOR_ROWS[scene.second_color])]
    return [first] * {"one": 1, "two": 2, "three": 3}[scene.count]


def random_placements(count: int, *, rng: torch.Generator) -> torch.Tensor:
    """Return scale (0.85 to 1) and shift in pixels (up to one), `(count, 3)`."""
    scale_N1 = 0.85 + 0.15 * torch.rand(count, 1, generator=rng)
    shift_N2 = torch.randint(-1, 2, (count, 2), generator=rng)
    return torch.cat([scale_N1, shift_N2], dim=1)


def compose(
    sprites: torch.Tensor, scenes: Sequence[Scene], placement_N3: torch.Tensor
) -> torch.Tensor:
    """Return one image per scene in [-1, 1], `(N, 3, SIZE, SIZE)`; its sprites share a
    placement."""
    listed = [parts(scene) for scene in scenes]
    owners = torch.tensor([row for row, found in enumerate(listed) for _ in found])
    spots = [spot for found in listed for spot in PLACES[len(found)]]
    alone_P = torch.tensor([len(found) == 1 for found in listed for _ in found])
    source = sprites[tuple(torch.tensor([part for found in listed for part in found]).T)]
    flipped = torch.tensor([scene.viewpoint == "upside down" for scene in scenes])[owners]
    source[flipped] = source[flipped].flip(-2)
    canvas_N4HW = torch.zeros(len(scenes), 4, SIZE, SIZE)
    if alone_P.any():
        placed = draw(source[alone_P], placement_N3[owners[alone_P]], side=SIZE)
        canvas_N4HW[owners[alone_P]] = placed
    if not alone_P.all():
        others = (~alone_P).nonzero().flatten()
        small = draw(source[others], placement_N3[owners[others]], side=SMALL)
        for part, image_4HW in zip(others.tolist(), small, strict=True):
            y, x = spots[part]
            canvas_N4HW[owners[part], :, y : y + SMALL, x : x + SMALL] = image_4HW
    ground_N311 = torch.stack([ground_color(scene.style) for scene in scenes])
    image_NCHW = canvas_N4HW[:, :3] + ground_N311 * (1 - canvas_N4HW[:, 3:])
    return image_NCHW.clamp(0, 1) * 2 - 1


def draw(sprite_P4HW: torch.Tensor, placement_P3: torch.Tensor, *, side: int) -> torch.Tensor:
    """Return sprites scaled and shifted on squares of `side` pixels, each averaged over 2 x 2."""
    source_P4HW = F.avg_pool2d(sprite_P4HW.float() / 255, CANVAS // (side * OVERSAMPLE))
    scale_P, shift_P2 = placement_P3[:, 0], placement_P3[:, 1:] * (2 / side)
    theta_P23 = torch.zeros(len(scale_P), 2, 3)
    theta_P23[:, 0, 0] = theta_P23[:, 1, 1] = 1 / scale_P
    theta_P23[:, :, 2] = shift_P2 / scale_P[:, None]
    grid_PHW2 = F.affine_grid(theta_P23, list(source_P4HW.shape), align_corners=False)
    return F.avg_pool2d(F.grid_sample(source_P4HW, grid_PHW2, align_corners=False), OVERSAMPLE)


def to_pixels(image_NCHW: torch.Tensor) -> torch.Tensor:
    """Return images in [-1, 1] as uint8."""
    return ((image_NCHW.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def grid(image_NCHW: torch.Tensor, *, columns: int, zoom: int = 1) -> Image.Image:
    """Return a contact sheet of uint8 images, row by row, enlarged without smoothing."""
    rows = image_NCHW.split(columns)
    sheet_CHW = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    sheet = Image.fromarray(sheet_CHW.permute(1, 2, 0).numpy())
    return sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST)
