"""Probe sets: captions that probe where a model keeps an attribute."""

import json
from itertools import product
from pathlib import Path

from engine.model.registry import EMOJI_SD
from jobs.input.captions import read_captions
from schemas.caption import Caption
from schemas.content_id import content_id
from schemas.errors import PlanError

FOLDER = Path(__file__).parent / "probe_sets"
"""`sd.csv`: for real models, in the manner of the paper."""
DEMO_CAPTIONS_PER_ATTRIBUTE = 12
"""Captions that `dqf trace submit` takes of each attribute by default: with 8 or fewer
no p-value is small enough to find one of the UNet's 29 components causal (docs/statistics.md)."""

OPENINGS = ("a photo of", "a picture of", "an image of")
COUNTS = ("two", "three")
PERSON = "person"
"""The object of the embedded models that has actions, and is drawn by them alone."""


def probe_names() -> list[str]:
    """Return the names of the probe sets."""
    return ["emoji-sd", *sorted(file.stem for file in FOLDER.glob("*.csv"))]


def probe_set(name: str) -> tuple[Caption, ...]:
    """Return the captions of a probe set; PlanError names the known ones."""
    if name == "emoji-sd":
        return emoji_probes()
    if name not in probe_names():
        raise PlanError(f"unknown probe set {name!r}: there are {', '.join(probe_names())}")
    return read_captions(FOLDER / f"{name}.csv")


def with_version(name: str) -> str:
    """Return NAME@VERSION of a probe set that is named with or without a version.

    The version is a hash of all its captions. PlanError: no set has the name, or it has another
    version here.
    """
    name, at, version = name.partition("@")
    captions = [caption.model_dump(exclude_none=True) for caption in probe_set(name)]
    own = content_id(captions)[:8]
    if at and version != own:
        raise PlanError(f"probe set {name} is of version {own} here, not {version}")
    return f"{name}@{own}"


def emoji_probes() -> tuple[Caption, ...]:
    """Return the probe set of the embedded models: one caption an object and attribute, and one an
    action and style, all balanced.

    Styles, colors, counts and openings take turns over the objects, out of step with one another.
    The target names the attribute with its object and nothing else. Objects that look alike upside
    down have no viewpoint.
    """
    vocabulary = json.loads((EMOJI_SD / "vocabulary.json").read_text())
    colors = [color for color in vocabulary["colors"] if color != "natural"]
    styles, alike = vocabulary["styles"], vocabulary["never_upside_down"]
    probes = [
        probe
        for n, thing in enumerate(name for name in vocabulary["objects"] if name != PERSON)
        for probe in _probes_of(
            thing,
            many=f"{COUNTS[n // 2 % 2]} {vocabulary['plurals'][thing]}",
            style=styles[(n + n // 4) % len(styles)],
            color=colors[(n + n // 6) % len(colors)],
            opening=OPENINGS[n % len(OPENINGS)],
        )
        if probe.attribute != "viewpoint" or thing not in alike
    ]
    for n, (action, style) in enumerate(product(vocabulary["actions"], styles)):
        words = f"a {PERSON} {action}"
        opening = OPENINGS[n % len(OPENINGS)]
        probes.append(_probe(opening, words, f" in the style of {style}", action, "action"))
    return tuple(probes)


def _probes_of(thing: str, *, many: str, style: str, color: str, opening: str) -> list[Caption]:
    plain, colored = f"{_article(thing)} {thing}", f"{_article(color)} {color} {thing}"
    end = f" in the style of {style}"
    return [
        _probe(opening, plain, end, thing, "object"),
        _probe(opening, plain + end, "", style, "style"),
        _probe(opening, colored, end, color, "color"),
        _probe(opening, f"an upside down {thing}", end, "upside down", "viewpoint"),
        _probe(opening, many, end, many.split()[0], "count"),
    ]


def _probe(opening: str, target: str, end: str, subject: str, attribute: str) -> Caption:
    return Caption(
        caption=f"{opening} {target}{end}", subject=subject, attribute=attribute, target=target
    )


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" and not word.startswith("uni") else "a"
