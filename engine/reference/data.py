"""Emoji drawings as training images: rendering, restyling, tinting, and a pool of all combinations.

Shapes: N images, C channels, H and W pixels (suffix `_NCHW`); `rgba` is straight alpha in [0, 1].
The drawings come from four npm packages; nothing is fetched where a folder with them is given.
"""

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
import torch
import torch.nn.functional as F
from PIL import Image

from engine.reference.vocabulary import COLOURS, OBJECTS, SIZE, STYLES, Combo, combos

PACKAGES = tuple(f"@iconify-json/{name}" for name in STYLES.values())
OVERSAMPLE = 3
CANVAS = SIZE * OVERSAMPLE
"""Side of the canvas that is drawn on, averaged down to SIZE afterwards."""
MARGIN = 8
"""Empty canvas pixels around the drawing, for the outline and the random shift."""
OUTLINE = 11
"""Side of the square (canvas pixels) that grows the silhouette into the sticker's outline."""
INK = (0.10, 0.10, 0.16)
WHITE, NAVY = (1.0, 1.0, 1.0), (0.05, 0.07, 0.25)
COPIES = 10
"""Random placements of each combination in the pool."""
FIXED = ((1.0, 0.0, 0.0), (0.9, -1.0, 0.0), (0.9, 1.0, 0.0))
"""Scale and shift (pixels) of the denoiser's images: few, so that a small model becomes sharp."""
SEED = 20240


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Images of every combination, in the order of `combos()`."""

    combos: list[Combo]
    image_NKCHW: torch.Tensor
    """uint8, N combinations x K placements."""

    @property
    def train(self) -> torch.Tensor:
        """Indices of the combinations that training may use."""
        return torch.tensor([i for i, c in enumerate(self.combos) if not c.held_out])

    @property
    def held_out(self) -> torch.Tensor:
        """Indices of the combinations kept for evaluation."""
        return torch.tensor([i for i, c in enumerate(self.combos) if c.held_out])


def to_float(image_NCHW: torch.Tensor) -> torch.Tensor:
    """Images in [-1, 1] from uint8."""
    return image_NCHW.float() / 127.5 - 1


def install_icons(folder: Path) -> Path:
    """The folder that holds the icon packages, after `npm install` into `folder` where needed."""
    icons = folder / "node_modules" / "@iconify-json"
    if not all((icons / name / "icons.json").exists() for name in STYLES.values()):
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *PACKAGES]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return icons


def render(icons: dict[str, Any], name: str) -> torch.Tensor:
    """One icon in the middle of the canvas, RGBA of (4, CANVAS, CANVAS)."""
    icon = icons["icons"][name]
    width, height = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))
    size = CANVAS - 2 * MARGIN
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{size}" height="{size}">{icon["body"]}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size))
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))
    rgba_CHW = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
    return F.pad(rgba_CHW, (MARGIN, MARGIN, MARGIN, MARGIN))


def tint(rgb_CHW: torch.Tensor, *, colour: str, flat: bool) -> torch.Tensor:
    """The drawing in shades of one hue: from a third of it up to a pale one."""
    target = COLOURS[colour]
    if target is None:
        return rgb_CHW
    target_C11 = torch.tensor(target).view(3, 1, 1)
    weights_C11 = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    light_1HW = (rgb_CHW * weights_C11).sum(0, keepdim=True)
    if flat:
        return target_C11.expand_as(rgb_CHW)
    dark_CHW = target_C11 * (0.35 + 0.65 * (light_1HW / 0.55).clamp(max=1))
    return dark_CHW.lerp(torch.ones_like(dark_CHW), ((light_1HW - 0.55) / 0.45).clamp(min=0) * 0.5)


def restyle(rgba_CHW: torch.Tensor, combo: Combo) -> torch.Tensor:
    """The drawing of a combination before placement: tint, sticker outline, viewpoint."""
    rgb_CHW, alpha_1HW = rgba_CHW[:3], rgba_CHW[3:]
    rgb_CHW = tint(rgb_CHW, colour=combo.colour, flat=combo.style == "stencil")
    if combo.style == "sticker":
        grown_1HW = F.max_pool2d(alpha_1HW[None], OUTLINE, stride=1, padding=OUTLINE // 2)[0]
        grown_1HW = F.avg_pool2d(grown_1HW[None], 3, stride=1, padding=1)[0]
        ink_CHW = torch.tensor(INK).view(3, 1, 1).expand_as(rgb_CHW)
        rgb_CHW = ink_CHW.lerp(rgb_CHW, alpha_1HW.expand_as(rgb_CHW))
        alpha_1HW = torch.maximum(grown_1HW, alpha_1HW)
    drawn_CHW = torch.cat([rgb_CHW, alpha_1HW])
    return drawn_CHW.flip(1) if combo.viewpoint == "upside down" else drawn_CHW


def random_placements(copies: int, *, rng: torch.Generator) -> torch.Tensor:
    """Scale (0.85 to 1) and shift in pixels (up to one), `(copies, 3)`."""
    scale_N1 = 0.85 + 0.15 * torch.rand(copies, 1, generator=rng)
    shift_N2 = torch.randint(-1, 2, (copies, 2), generator=rng)
    return torch.cat([scale_N1, shift_N2], dim=1)


def place(rgba_CHW: torch.Tensor, placement_N3: torch.Tensor, *, style: str) -> torch.Tensor:
    """One uint8 image per placement, on the style's ground."""
    copies, scale_N = len(placement_N3), placement_N3[:, 0]
    shift_N2 = placement_N3[:, 1:] * (2 / SIZE)
    theta_N23 = torch.zeros(copies, 2, 3)
    theta_N23[:, 0, 0] = theta_N23[:, 1, 1] = 1 / scale_N
    theta_N23[:, :, 2] = shift_N2 / scale_N[:, None]
    premultiplied_CHW = torch.cat([rgba_CHW[:3] * rgba_CHW[3:], rgba_CHW[3:]])
    grid_NHW2 = F.affine_grid(theta_N23, [copies, 4, CANVAS, CANVAS], align_corners=False)
    source_NCHW = premultiplied_CHW.expand(copies, -1, -1, -1)
    moved_NCHW = F.grid_sample(source_NCHW, grid_NHW2, align_corners=False)
    small_NCHW = F.avg_pool2d(moved_NCHW, OVERSAMPLE)
    ground_C11 = torch.tensor(NAVY if style == "neon" else WHITE).view(3, 1, 1)
    image_NCHW = small_NCHW[:, :3] + ground_C11 * (1 - small_NCHW[:, 3:])
    return (image_NCHW.clamp(0, 1) * 255).round().to(torch.uint8)


def build_pool(icons_folder: Path, *, copies: int = COPIES, seed: int = SEED) -> Pool:
    """Render every icon once and place every combination `copies` times."""
    rng = torch.Generator().manual_seed(seed)
    drawings = render_all(icons_folder)
    images = [
        place(
            restyle(drawings[c.object, c.style], c),
            random_placements(copies, rng=rng),
            style=c.style,
        )
        for c in combos()
    ]
    return Pool(combos=list(combos()), image_NKCHW=torch.stack(images))


def build_fixed_pool(icons_folder: Path) -> Pool:
    """Every combination in the same few placements: what the denoiser learns to draw."""
    drawings, placement_N3 = render_all(icons_folder), torch.tensor(FIXED)
    images = [
        place(restyle(drawings[c.object, c.style], c), placement_N3, style=c.style)
        for c in combos()
    ]
    return Pool(combos=list(combos()), image_NKCHW=torch.stack(images))


def render_all(icons_folder: Path) -> dict[tuple[str, str], torch.Tensor]:
    """Every object in every artist's drawing, by object and style."""
    drawings: dict[tuple[str, str], torch.Tensor] = {}
    for style, package in STYLES.items():
        icons = json.loads((icons_folder / package / "icons.json").read_text())
        for obj, name in OBJECTS.items():
            drawings[obj, style] = render(icons, name)
    return drawings


def load_pool(work: Path, *, icons: Path | None = None) -> Pool:
    """The pool kept in `work`, built there (from the icon packages) on the first call."""
    return _kept(work, "pool.pt", build_pool, icons=icons)


def load_fixed_pool(work: Path, *, icons: Path | None = None) -> Pool:
    """The denoiser's pool, kept in `work` in the same way."""
    return _kept(work, "fixed_pool.pt", build_fixed_pool, icons=icons)


def _kept(work: Path, name: str, build: Callable[[Path], Pool], *, icons: Path | None) -> Pool:
    path = work / name
    if not path.exists():
        pool = build(icons or install_icons(work / "icons"))
        torch.save(pool.image_NKCHW, path)
        return pool
    return Pool(combos=list(combos()), image_NKCHW=torch.load(path))


def grid(image_NCHW: torch.Tensor, *, columns: int, zoom: int = 1) -> Image.Image:
    """A contact sheet of uint8 images, row by row, enlarged without smoothing."""
    rows = image_NCHW.split(columns)
    sheet_CHW = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    sheet = Image.fromarray(sheet_CHW.permute(1, 2, 0).numpy())
    return sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Render the pool of training images.")
    parser.add_argument("--work", type=Path, default=Path(".build/emoji"))
    parser.add_argument("--icons", type=Path, help="folder that holds the four icon packages")
    options = parser.parse_args()
    print(load_pool(options.work, icons=options.icons).image_NKCHW.shape, file=sys.stderr)
