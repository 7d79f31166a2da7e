"""Drawings as sprites: tinted in a color, outlined in the sticker style, ready to be placed.

Shapes: C channels, H and W canvas pixels. `rgba` is straight alpha in [0, 1]; sprites are
multiplied by their alpha.
"""

import torch
import torch.nn.functional as F

from engine.reference.vocabulary import COLORS, SIZE

OVERSAMPLE = 2
CANVAS = SIZE * OVERSAMPLE
"""Side of the canvas that is drawn on, averaged down to SIZE at the end."""
MARGIN = 10
"""Empty canvas pixels around the drawing, for the outline and the random shift."""
OUTLINE = 15
"""Side of the square (canvas pixels) that grows the silhouette into the sticker's outline."""
INK = (0.10, 0.10, 0.16)
NAVY, WHITE = (0.05, 0.07, 0.25), (1.0, 1.0, 1.0)


def tint(rgb_CHW: torch.Tensor, *, color: str, flat: bool) -> torch.Tensor:
    """Return the drawing in shades of one hue: from a third of it up to a pale one."""
    target = COLORS[color]
    if target is None:
        return rgb_CHW
    target_C11 = torch.tensor(target).view(3, 1, 1)
    weights_C11 = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    light_1HW = (rgb_CHW * weights_C11).sum(0, keepdim=True)
    if flat:
        return target_C11.expand_as(rgb_CHW)
    dark_CHW = target_C11 * (0.35 + 0.65 * (light_1HW / 0.55).clamp(max=1))
    return dark_CHW.lerp(torch.ones_like(dark_CHW), ((light_1HW - 0.55) / 0.45).clamp(min=0) * 0.5)


def sprite(rgba_CHW: torch.Tensor, *, style: str, color: str) -> torch.Tensor:
    """Return the drawing in a color, outlined if a sticker, multiplied by its alpha."""
    rgb_CHW, alpha_1HW = rgba_CHW[:3], rgba_CHW[3:]
    rgb_CHW = tint(rgb_CHW, color=color, flat=style == "stencil")
    if style == "sticker":
        grown_1HW = F.max_pool2d(alpha_1HW[None], OUTLINE, stride=1, padding=OUTLINE // 2)[0]
        grown_1HW = F.avg_pool2d(grown_1HW[None], 3, stride=1, padding=1)[0]
        ink_CHW = torch.tensor(INK).view(3, 1, 1).expand_as(rgb_CHW)
        rgb_CHW = ink_CHW.lerp(rgb_CHW, alpha_1HW.expand_as(rgb_CHW))
        alpha_1HW = torch.maximum(grown_1HW, alpha_1HW)
    return torch.cat([rgb_CHW * alpha_1HW, alpha_1HW])


def ground_color(style: str) -> torch.Tensor:
    """Return the color behind a drawing of a style, `(3, 1, 1)`."""
    return torch.tensor(NAVY if style == "neon" else WHITE).view(3, 1, 1)


def mirror_difference(sprite_CHW: torch.Tensor, *, style: str) -> float:
    """Return how much a drawing on its ground differs from itself upside down, in [0, 1].

    It is the mean absolute difference of the colors over both silhouettes.
    """
    image_CHW = sprite_CHW[:3] + ground_color(style) * (1 - sprite_CHW[3:])
    union_HW = torch.maximum(sprite_CHW[3], sprite_CHW[3].flip(0))
    return float((image_CHW - image_CHW.flip(1)).abs().mean(0).sum() / union_HW.sum())


def all_colors(rgba_CHW: torch.Tensor, *, style: str) -> torch.Tensor:
    """Return the sprites of a drawing in every color, uint8 of (C, 4, CANVAS, CANVAS)."""
    colored = torch.stack([sprite(rgba_CHW, style=style, color=color) for color in COLORS])
    return (colored * 255).round().to(torch.uint8)
