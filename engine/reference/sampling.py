"""Random scenes for training, of one object and of two, none of them held out.

Contrastive training draws groups of scenes that share their objects: hard negatives, which a batch
of independent scenes rarely contains.
"""

from dataclasses import dataclass
from typing import TypeVar

import torch

from engine.reference.vocabulary import (
    ALIKE,
    COLORS,
    COUNTS,
    OBJECTS,
    STYLES,
    VIEWPOINTS,
    Scene,
    drawings,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The share of each kind of scene, and how the pairs of a group are related."""

    single: float
    """One of an object."""
    counted: float
    """Two or three of it."""
    pair: float
    """Two objects."""
    swaps: bool
    """Whether half of a group's pairs share one object only: where both are always shared, the
    first alone tells captions apart."""

    @property
    def kinds(self) -> dict[str, float]:
        """The shares by kind."""
        return {"single": self.single, "counted": self.counted, "pair": self.pair}


BROAD = Mix(single=0.62, counted=0.2, pair=0.18, swaps=False)
CROWDED = Mix(single=0.42, counted=0.38, pair=0.2, swaps=True)
SMALL = Mix(single=0.15, counted=0.45, pair=0.4, swaps=True)
NATURAL, UPRIGHT = 2.0, 2.0
"""The weights of natural colors and of upright, relative to each other value."""

T = TypeVar("T")

_DRAWINGS = tuple(drawings())
_COLOR_WEIGHTS = torch.tensor([NATURAL if color == "natural" else 1.0 for color in COLORS])
_VIEWPOINT_WEIGHTS = torch.tensor([UPRIGHT if v == "upright" else 1.0 for v in VIEWPOINTS])


def pick(values: tuple[T, ...], rng: torch.Generator) -> T:
    """Return one of the values, all equally likely."""
    return values[int(torch.randint(len(values), (), generator=rng))]


def pick_weighted(values: tuple[str, ...], weights: torch.Tensor, rng: torch.Generator) -> str:
    """Return one of the values by weight."""
    return values[int(torch.multinomial(weights, 1, generator=rng))]


def pick_kind(mix: Mix, rng: torch.Generator) -> str:
    """Return a kind of scene by its share."""
    return pick_weighted(tuple(mix.kinds), torch.tensor(list(mix.kinds.values())), rng)


def pick_color(rng: torch.Generator) -> str:
    """Return a color, natural twice as often as each other."""
    return pick_weighted(tuple(COLORS), _COLOR_WEIGHTS, rng)


def variation(kind: str, first: tuple[str, str], second: str, rng: torch.Generator) -> Scene:
    """Return a scene of a kind with these objects, everything else random; not held out."""
    while True:
        style, color = pick(tuple(STYLES), rng), pick_color(rng)
        if kind == "pair":
            names = (first[0], second)
            left, right = names if torch.rand((), generator=rng) < 0.5 else names[::-1]
            scene = Scene(left, style, color, second=right, second_color=pick_color(rng))
        else:
            name, action = first
            turned = pick_weighted(tuple(VIEWPOINTS), _VIEWPOINT_WEIGHTS, rng)
            viewpoint = "upright" if name in ALIKE else turned
            count = "one" if kind == "single" else pick(COUNTS[1:], rng)
            scene = Scene(name, style, color, viewpoint, count, action)
        if not scene.held_out:
            return scene


def objects_of(kind: str, rng: torch.Generator) -> tuple[tuple[str, str], str]:
    """Return the drawing that a scene of a kind shows, and the second object of a pair."""
    if kind != "pair":
        return pick(_DRAWINGS, rng), ""
    first, second = torch.randperm(len(OBJECTS), generator=rng)[:2].tolist()
    return (list(OBJECTS)[first], ""), list(OBJECTS)[second]


def another(name: str, rng: torch.Generator) -> str:
    """Return an object of another name."""
    return pick(tuple(other for other in OBJECTS if other != name), rng)


def random_scene(mix: Mix, rng: torch.Generator) -> Scene:
    """Return one scene of any kind."""
    kind = pick_kind(mix, rng)
    return variation(kind, *objects_of(kind, rng), rng)


def related_scenes(count: int, *, group: int, mix: Mix, rng: torch.Generator) -> list[Scene]:
    """Return scenes in groups that share objects; single and counted ones are mixed."""
    drawn: list[Scene] = []
    while len(drawn) < count:
        kind = pick_kind(mix, rng)
        first, second = objects_of(kind, rng)
        for row in range(group):
            again = kind if kind == "pair" or torch.rand((), generator=rng) < 0.5 else "single"
            other = another(first[0], rng) if mix.swaps and kind == "pair" and row % 2 else second
            drawn.append(variation(again, first, other, rng))
    return drawn[:count]
