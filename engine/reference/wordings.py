"""Random wordings of a scene, and which captions are right for which images.

Shapes: N images and captions, A attributes (suffixes `_NA`, `_NN`).
"""

from dataclasses import dataclass

import torch

from engine.reference.sampling import pick
from engine.reference.vocabulary import (
    ACTIONS,
    COLORS,
    COUNTS,
    GENERIC,
    OBJECTS,
    OPENINGS,
    PERSON,
    STYLES,
    VIEWPOINTS,
    Scene,
    caption,
)

STYLE_LEFT_OUT, ACTION_LEFT_OUT, GENERIC_SAID, ONE_SAID = 0.3, 0.2, 0.08, 0.15
"""Share of captions that say no style, no action of a person, no object, "one" instead of "a"."""
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "object": (*OBJECTS, PERSON),
    "action": ("", *ACTIONS),
    "style": tuple(STYLES),
    "color": tuple(COLORS),
    "viewpoint": tuple(VIEWPOINTS),
    "count": COUNTS,
    "second": ("", *OBJECTS),
    "second_color": tuple(COLORS),
}
"""Attribute of a scene to its values."""
OPTIONAL = ("object", "action", "style")
"""Attributes that a caption may leave out: then any value is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """A caption of a scene and the optional attributes that it leaves out."""

    text: str
    unsaid: tuple[str, ...] = ()


def attributes(scenes: list[Scene]) -> torch.Tensor:
    """Return scenes as indices into the values of ATTRIBUTES, `(N, A)`."""
    rows = [[v.index(getattr(s, name)) for name, v in ATTRIBUTES.items()] for s in scenes]
    return torch.tensor(rows)


def random_wording(scene: Scene, rng: torch.Generator) -> Wording:
    """Return a caption with a random opening that may leave out the style, action or object."""

    def happens(share: float) -> bool:
        return bool(torch.rand((), generator=rng) < share)

    opening = pick(OPENINGS, rng)
    with_style = not happens(STYLE_LEFT_OUT)
    with_action = not happens(ACTION_LEFT_OUT)
    noun = _generic_noun(scene, opening, rng) if happens(GENERIC_SAID) else ""
    says_one = happens(ONE_SAID) and not scene.second and noun != "something"
    text = caption(
        scene,
        opening=opening,
        with_style=with_style,
        with_action=with_action,
        noun=noun,
        one="one" if says_one else "",
    )
    left_out = {
        "object": bool(noun),
        "action": bool(noun) or (scene.action != "" and not with_action),
        "style": not with_style,
    }
    return Wording(text=text, unsaid=tuple(name for name, out in left_out.items() if out))


def _generic_noun(scene: Scene, opening: str, rng: torch.Generator) -> str:
    """Return a word that stands for any object; of several, or of two objects, fewer or none."""
    if scene.second:
        return ""
    fits = [noun for noun in GENERIC if noun not in opening]
    return pick(tuple(n for n in fits if n != "something" or scene.count == "one"), rng)


def matches(attribute_NA: torch.Tensor, wordings: list[Wording]) -> torch.Tensor:
    """Return `match_NN`, 1 where a caption (column) says nothing wrong of an image (row)."""
    same_NNA = attribute_NA[:, None] == attribute_NA[None]
    for name in OPTIONAL:
        unsaid_N = torch.tensor([name in wording.unsaid for wording in wordings])
        same_NNA[:, :, list(ATTRIBUTES).index(name)] |= unsaid_N[None]
    return same_NNA.all(-1).float()
