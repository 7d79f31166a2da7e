"""The emoji drawings: fetched and rendered once, made into a sprite in every style and color.

Shapes: D drawings, S styles, C channels, H and W canvas pixels. The drawings come from four npm
packages; nothing is fetched if a folder with them is given.
"""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from engine.reference.sprites import CANVAS, MARGIN, all_colors, mirror_difference, sprite
from engine.reference.vocabulary import ACTIONS, ALIKE, OBJECTS, STYLES, drawings

PACKAGES = tuple(f"@iconify-json/{name}" for name in STYLES.values())
ALIKE_BELOW = 0.12
"""Mean difference of an image from its mirror image under which both look alike."""


def install_icons(folder: Path) -> Path:
    """Return the folder that holds the icon packages; `npm install` puts them there if needed."""
    icons = folder / "node_modules" / "@iconify-json"
    if not all((icons / name / "icons.json").exists() for name in STYLES.values()):
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *PACKAGES]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return icons


def render(icons: dict[str, Any], name: str) -> torch.Tensor:
    """Return one icon in the middle of the canvas, RGBA of (4, CANVAS, CANVAS)."""
    # From the extra `reference`, which an evaluation with kept sprites does not need.
    import resvg_py

    name = icons.get("aliases", {}).get(name, {}).get("parent", name)
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


def render_all(icons_folder: Path) -> torch.Tensor:
    """Return every drawing by every artist, `rgba_DSCHW` in the order of `drawings()`."""
    sets = [json.loads((icons_folder / p / "icons.json").read_text()) for p in STYLES.values()]
    names = [ACTIONS[action] if action else OBJECTS[name] for name, action in drawings()]
    return torch.stack([torch.stack([render(icons, n) for icons in sets]) for n in names])


def alike_upside_down(rgba_DSCHW: torch.Tensor) -> frozenset[str]:
    """Return the objects that look alike upside down in at least one style.

    The rule: in natural colors or in red (where hue cannot help), the image differs from its
    mirror image by less than ALIKE_BELOW.
    """
    return frozenset(
        name
        for (name, _), rgba_SCHW in zip(drawings(), rgba_DSCHW, strict=True)
        for style, rgba_CHW in zip(STYLES, rgba_SCHW, strict=True)
        for color in ("natural", "red")
        if mirror_difference(sprite(rgba_CHW, style=style, color=color), style=style) < ALIKE_BELOW
    )


def build_sprites(icons_folder: Path) -> torch.Tensor:
    """Return all sprites, uint8 of (D, S, C, 4, CANVAS, CANVAS).

    RuntimeError: the drawings that look alike upside down are not those of the vocabulary.
    """
    rgba_DSCHW = render_all(icons_folder)
    alike = alike_upside_down(rgba_DSCHW)
    if alike != ALIKE:
        raise RuntimeError(f"vocabulary.ALIKE must be {sorted(alike)}, is {sorted(ALIKE)}")
    by_drawing = [
        torch.stack(
            [all_colors(rgba_CHW, style=s) for s, rgba_CHW in zip(STYLES, row, strict=True)]
        )
        for row in rgba_DSCHW
    ]
    return torch.stack(by_drawing)


def load_sprites(work: Path, *, icons: Path | None = None) -> torch.Tensor:
    """Return the sprites kept in `work`, built there from the icon packages on the first call."""
    path = work / "sprites.pt"
    if not path.exists():
        sprites = build_sprites(icons or install_icons(work / "icons"))
        part = path.with_suffix(".part")
        torch.save(sprites, part)
        part.replace(path)
    return torch.load(path, weights_only=True)
