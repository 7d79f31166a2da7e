"""The words of the embedded model: attributes, openings, held-out rule."""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GUIDANCE = 3.0
"""Classifier-free guidance that every user of the model should start from."""
STEPS = 20
"""DDIM steps that every user of the model should start from."""
SIZE = 32
"""Side of an image in pixels."""

OBJECTS: dict[str, str] = {
    "cat": "cat-face",
    "dog": "dog-face",
    "cow": "cow-face",
    "pig": "pig-face",
    "rabbit": "rabbit-face",
    "fox": "fox",
    "frog": "frog",
    "panda": "panda",
    "monkey": "monkey-face",
    "penguin": "penguin",
    "owl": "owl",
    "duck": "duck",
    "rooster": "rooster",
    "elephant": "elephant",
    "giraffe": "giraffe",
    "snail": "snail",
    "turtle": "turtle",
    "octopus": "octopus",
    "whale": "spouting-whale",
    "butterfly": "butterfly",
    "unicorn": "unicorn",
    "banana": "banana",
    "pineapple": "pineapple",
    "strawberry": "strawberry",
    "cherries": "cherries",
    "carrot": "carrot",
    "mushroom": "mushroom",
    "hamburger": "hamburger",
    "hot dog": "hot-dog",
    "french fries": "french-fries",
    "ice cream": "soft-ice-cream",
    "birthday cake": "birthday-cake",
    "cupcake": "cupcake",
    "wine glass": "wine-glass",
    "teapot": "teapot",
    "palm tree": "palm-tree",
    "christmas tree": "christmas-tree",
    "cactus": "cactus",
    "sunflower": "sunflower",
    "potted plant": "potted-plant",
    "house": "house",
    "castle": "castle",
    "volcano": "volcano",
    "fire engine": "fire-engine",
    "police car": "police-car",
    "bus": "bus",
    "tractor": "tractor",
    "bicycle": "bicycle",
    "airplane": "airplane",
    "helicopter": "helicopter",
    "rocket": "rocket",
    "sailboat": "sailboat",
    "balloon": "balloon",
    "umbrella": "umbrella",
    "crown": "crown",
    "top hat": "top-hat",
    "bell": "bell",
    "trophy": "trophy",
    "light bulb": "light-bulb",
    "guitar": "guitar",
    "teddy bear": "teddy-bear",
    "snowman": "snowman",
    "ghost": "ghost",
    "robot": "robot",
    "chair": "chair",
    "boot": "womans-boot",
    "shirt": "t-shirt",
    "dress": "dress",
    "skull": "skull",
    "anchor": "anchor",
    "hammer": "hammer",
    "telephone": "telephone",
}
"""Object word in a caption to the icon's name in all four sets."""

STYLES: dict[str, str] = {
    "noto": "noto",
    "sticker": "twemoji",
    "neon": "fluent-emoji-flat",
    "stencil": "fluent-emoji-high-contrast",
}
"""Style word in a caption to the icon set whose artist drew it."""
COLOURS: dict[str, tuple[float, float, float] | None] = {
    "natural": None,
    "red": (0.90, 0.10, 0.12),
    "orange": (0.98, 0.52, 0.05),
    "yellow": (0.95, 0.85, 0.10),
    "green": (0.13, 0.66, 0.22),
    "blue": (0.14, 0.32, 0.92),
    "purple": (0.60, 0.18, 0.80),
}
"""Colour to its RGB tint; `natural` is the drawing's own colours and has no word in a caption."""
VIEWPOINTS: dict[str, str] = {"upright": "", "upside down": "upside down"}
"""Viewpoint to its words in a caption; upside down is the drawing mirrored top to bottom."""
OPENINGS: tuple[str, ...] = ("", "a photo of", "a picture of", "an image of", "a drawing of")
"""What may stand before the article."""
SLOTS: tuple[str, ...] = ("object", "style", "colour", "viewpoint")
HELD_OUT_PERCENT = 15


@dataclass(frozen=True, slots=True, order=True)
class Combo:
    """One exact combination of the four attributes."""

    object: str
    style: str
    colour: str = "natural"
    viewpoint: str = "upright"

    @property
    def held_out(self) -> bool:
        """Whether no training stage may see this combination (a fixed hash of its words)."""
        words = f"{self.object}|{self.style}|{self.colour}|{self.viewpoint}"
        return zlib.crc32(words.encode()) % 100 < HELD_OUT_PERCENT


def combos() -> Iterator[Combo]:
    """Every combination, objects outermost, viewpoints innermost."""
    for obj in OBJECTS:
        for style in STYLES:
            for colour in COLOURS:
                for viewpoint in VIEWPOINTS:
                    yield Combo(obj, style, colour, viewpoint)


def caption(combo: Combo, *, opening: str = "", with_style: bool = True) -> str:
    """The caption, such as "a photo of an upside down red cat in the style of noto"."""
    colour = "" if combo.colour == "natural" else combo.colour
    phrase = " ".join(w for w in (VIEWPOINTS[combo.viewpoint], colour, combo.object) if w)
    article = "an" if phrase[0] in "aeio" or phrase.startswith(("up", "umb")) else "a"
    style = f"in the style of {combo.style}" if with_style else ""
    return " ".join(w for w in (opening, article, phrase, style) if w)


def write_vocabulary(path: Path) -> None:
    """Write what a user of the model needs to build prompts, as JSON."""
    held = [[c.object, c.style, c.colour, c.viewpoint] for c in combos() if c.held_out]
    content = {
        "objects": list(OBJECTS),
        "styles": list(STYLES),
        "colours": list(COLOURS),
        "viewpoints": list(VIEWPOINTS),
        "openings": list(OPENINGS),
        "template": "{opening} {a|an} {viewpoint words} {colour} {object} in the style of {style}",
        "notes": "natural and upright have no words; the style may be left out (then any is right)",
        "guidance": GUIDANCE,
        "steps": STEPS,
        "size": SIZE,
        "held_out": held,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    write_vocabulary(Path(__file__).parent / "emoji-sd" / "vocabulary.json")
