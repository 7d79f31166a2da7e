"""Probe sets: captions that probe where a model keeps an attribute."""

import json
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
    """Return the probe set of emoji-sd: one caption an object and attribute, all balanced.

    Styles, colors and openings take turns over the objects, out of step with one another. The
    target names the attribute with its object and nothing else.
    """
    vocabulary = json.loads((EMOJI_SD / "vocabulary.json").read_text())
    colors = [color for color in vocabulary["colors"] if color != "natural"]
    return tuple(
        probe
        for n, thing in enumerate(vocabulary["objects"])
        for probe in _probes_of(
            thing,
            style=vocabulary["styles"][(n + n // 4) % len(vocabulary["styles"])],
            color=colors[(n + n // 6) % len(colors)],
            opening=OPENINGS[n % len(OPENINGS)],
        )
    )


def _probes_of(thing: str, *, style: str, color: str, opening: str) -> list[Caption]:
    def probe(words: str, subject: str, attribute: str, *, target: str) -> Caption:
        return Caption(
            caption=f"{opening} {words}", subject=subject, attribute=attribute, target=target
        )

    plain = f"{_article(thing)} {thing}"
    styled = f"{plain} in the style of {style}"
    colored = f"{_article(color)} {color} {thing}"
    turned = f"an upside down {thing}"
    return [
        probe(styled, thing, "object", target=plain),
        probe(styled, style, "style", target=styled),
        probe(f"{colored} in the style of {style}", color, "color", target=colored),
        probe(f"{turned} in the style of {style}", "upside down", "viewpoint", target=turned),
    ]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" and not word.startswith("uni") else "a"
