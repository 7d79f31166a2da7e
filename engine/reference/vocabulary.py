"""The words of the embedded models: attributes, scenes, captions, and what training never sees."""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GUIDANCE = {"emoji-sd": 3.0, "emoji-dit": 3.0}
"""Classifier-free guidance that every user of a model should start from."""
STEPS = 20
"""Denoising steps that every user of the models should start from."""
SIZE = 64
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
    "eggplant": "eggplant",
    "carrot": "carrot",
    "mushroom": "mushroom",
    "hamburger": "hamburger",
    "hot dog": "hot-dog",
    "pretzel": "pretzel",
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
"""Object word in a caption to the icon's name in all four sets; a person is drawn by action."""

PERSON = "person"
ACTIONS: dict[str, str] = {
    "standing": "person-standing",
    "running": "person-running",
    "swimming": "person-swimming",
    "dancing": "man-dancing",
    "surfing": "person-surfing",
    "rowing": "person-rowing-boat",
    "cycling": "person-biking",
    "climbing": "person-climbing",
    "juggling": "person-juggling",
    "kneeling": "person-kneeling",
    "meditating": "person-in-lotus-position",
}
"""A person's action to the icon's name."""

STYLES: dict[str, str] = {
    "noto": "noto",
    "sticker": "twemoji",
    "neon": "fluent-emoji-flat",
    "stencil": "fluent-emoji-high-contrast",
}
"""Style word in a caption to the icon set whose artist drew it."""
COLORS: dict[str, tuple[float, float, float] | None] = {
    "natural": None,
    "red": (0.90, 0.10, 0.12),
    "orange": (0.98, 0.52, 0.05),
    "yellow": (0.95, 0.85, 0.10),
    "green": (0.13, 0.66, 0.22),
    "blue": (0.14, 0.32, 0.92),
    "purple": (0.60, 0.18, 0.80),
}
"""Color to its RGB tint; `natural` is the drawing's own colors and has no word in a caption."""
VIEWPOINTS: dict[str, str] = {"upright": "", "upside down": "upside down"}
"""Viewpoint to its words in a caption; upside down is the drawing mirrored top to bottom."""
COUNTS: tuple[str, ...] = ("one", "two", "three")
GENERIC: tuple[str, ...] = ("object", "thing", "something", "drawing")
"""Words that stand for any object."""
ALIKE: frozenset[str] = frozenset(
    (
        "butterfly",
        "cactus",
        "hamburger",
        "octopus",
        "pig",
        "shirt",
        "skull",
        "strawberry",
        "top hat",
    )
)
"""Objects that no caption calls upside down: see `drawings.alike_upside_down`."""
PLURALS: dict[str, str] = {"person": "people", "snowman": "snowmen"}
"""Plurals that spelling does not give."""
OPENINGS: tuple[str, ...] = ("", "a photo of", "a picture of", "an image of", "a drawing of")
"""The openings of a caption, before the article."""

HELD_OUT_PERCENT = 15
"""Share of captions that no training stage sees."""
UNSEEN_PAIR_PERCENT = 5
"""Share of pairs of an object and a color that no training stage sees in any caption."""


@dataclass(frozen=True, slots=True, order=True)
class Scene:
    """The content of an image: one to three of one object, or two objects side by side."""

    object: str
    style: str
    color: str = "natural"
    viewpoint: str = "upright"
    count: str = "one"
    action: str = ""
    second: str = ""
    """The object on the right, if there is one."""
    second_color: str = "natural"

    @property
    def has_unseen_pair(self) -> bool:
        """Whether an object has a color that no training stage shows it in."""
        said = ((self.object, self.color), (self.second, self.second_color))
        return any(
            color != "natural" and _bucket(f"{color} {name}") < UNSEEN_PAIR_PERCENT
            for name, color in said
        )

    @property
    def held_out(self) -> bool:
        """Whether no training stage may see this scene (a fixed hash of its caption)."""
        return self.has_unseen_pair or _bucket(caption(self)) < HELD_OUT_PERCENT


def _bucket(words: str) -> int:
    return zlib.crc32(words.encode()) % 100


def drawings() -> Iterator[tuple[str, str]]:
    """Return the (object, action) of everything that the artists drew; a person comes last."""
    for name in OBJECTS:
        yield name, ""
    for action in ACTIONS:
        yield PERSON, action


def scenes() -> Iterator[Scene]:
    """Return every scene of one object, objects outermost, counts innermost."""
    for name, action in drawings():
        viewpoints = ["upright"] if name in ALIKE else list(VIEWPOINTS)
        for style in STYLES:
            for color in COLORS:
                for viewpoint in viewpoints:
                    for count in COUNTS:
                        yield Scene(name, style, color, viewpoint, count, action)


def caption(
    scene: Scene,
    *,
    opening: str = "",
    with_style: bool = True,
    with_action: bool = True,
    noun: str = "",
    one: str = "",
) -> str:
    """Return the caption, such as "a photo of two upside down red cats in the style of noto".

    `noun` replaces the object and its action; `one` replaces "a" or "an".
    """
    action = scene.action if with_action and not noun else ""
    words = [VIEWPOINTS[scene.viewpoint], _color_word(scene.color)]
    phrase = counted(noun or scene.object, scene.count, words=words, one=one)
    if scene.second:
        second = counted(scene.second, "one", words=[_color_word(scene.second_color)])
        phrase = f"{phrase} and {second}"
    style = f"in the style of {scene.style}" if with_style else ""
    return " ".join(w for w in (opening, phrase, action, style) if w)


def counted(noun: str, count: str, *, words: list[str], one: str = "") -> str:
    """Return the noun after its number or article and its adjectives; "something" needs none."""
    phrase = " ".join(w for w in (*words, noun if count == "one" else plural(noun)) if w)
    if phrase == "something":
        return phrase
    return f"{one or article(phrase) if count == 'one' else count} {phrase}"


def _color_word(color: str) -> str:
    return "" if color == "natural" else color


def article(phrase: str) -> str:
    """Return "a" or "an"; of the words that begin with u, only "unicorn" starts with a consonant
    sound."""
    return "an" if phrase[0] in "aeiou" and not phrase.startswith("uni") else "a"


def plural(noun: str) -> str:
    """Return the plural of an object's name."""
    if noun in PLURALS:
        return PLURALS[noun]
    if noun.endswith(("s", "x", "sh", "ch")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def write_vocabulary(path: Path, *, guidance: float) -> None:
    """Write the words and rules that build prompts for a model, as JSON."""
    content = {
        "objects": [*OBJECTS, PERSON],
        "styles": list(STYLES),
        "colors": list(COLORS),
        "viewpoints": list(VIEWPOINTS),
        "counts": list(COUNTS),
        "actions": list(ACTIONS),
        "generic": list(GENERIC),
        "never_upside_down": sorted(ALIKE),
        "plurals": {name: plural(name) for name in (*OBJECTS, PERSON)},
        "openings": list(OPENINGS),
        "templates": [
            "{opening} {a|an|one|two|three} {viewpoint words} {color} {object} {action} "
            "in the style of {style}",
            "{opening} {a|an} {color} {object} and {a|an} {color} {object} in the style of {style}",
        ],
        "notes": "natural and upright have no words; only a person has an action; a style or an "
        "action left out may be any; a generic word may be any object",
        "guidance": guidance,
        "steps": STEPS,
        "size": SIZE,
        "held_out": f"captions without opening whose crc32 modulo 100 is below {HELD_OUT_PERCENT}; "
        f"captions with a '{{color}} {{object}}' whose crc32 modulo 100 is below "
        f"{UNSEEN_PAIR_PERCENT}",
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
