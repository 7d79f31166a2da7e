"""The held-out prompts that the embedded models are evaluated on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.reference.sampling import pick
from engine.reference.vocabulary import COLORS, OBJECTS, OPENINGS, STYLES, Scene, caption, scenes

PROMPTS = {"one": 400, "two": 100, "three": 100}
"""Prompts of one object by count."""
UNSEEN_PAIRS, TWO_OBJECTS = 120, 160
SEED = 61


def held_out_scenes(limit: int, *, count: str = "one") -> list[Scene]:
    """Return at most `limit` evenly spread held-out scenes with a count, without unseen pairs."""
    found = [s for s in scenes() if s.held_out and not s.has_unseen_pair and s.count == count]
    return evenly(found, limit)


def evenly(found: list[Scene], limit: int) -> list[Scene]:
    """Return at most `limit` scenes at equal distances."""
    if len(found) <= limit:
        return found
    return [found[row * len(found) // limit] for row in range(limit)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSets:
    """The scenes of each set."""

    one_object: list[Scene]
    unseen_pairs: list[Scene]
    two_objects: list[Scene]


def prompt_sets(*, fraction: float = 1.0) -> PromptSets:
    """Return the prompts of the evaluation, or a fraction of each set."""
    of_count = [held_out_scenes(round(n * fraction), count=count) for count, n in PROMPTS.items()]
    unseen = [s for s in scenes() if s.has_unseen_pair and s.count == "one"]
    return PromptSets(
        one_object=[scene for found in of_count for scene in found],
        unseen_pairs=evenly(unseen, round(UNSEEN_PAIRS * fraction)),
        two_objects=held_out_pairs(round(TWO_OBJECTS * fraction)),
    )


def held_out_pairs(limit: int) -> list[Scene]:
    """Return scenes of two objects in two colors, held out though both were seen in theirs."""
    rng = torch.Generator().manual_seed(SEED)
    tints = tuple(color for color in COLORS if color != "natural")
    pairs: list[Scene] = []
    while len(pairs) < limit:
        names, hues = (torch.randperm(len(v), generator=rng)[:2].tolist() for v in (OBJECTS, tints))
        first, second = (list(OBJECTS)[row] for row in names)
        scene = Scene(
            first,
            pick(tuple(STYLES), rng),
            tints[hues[0]],
            second=second,
            second_color=tints[hues[1]],
        )
        if scene.held_out and not scene.has_unseen_pair:
            pairs.append(scene)
    return pairs


def prompts(asked: Sequence[Scene]) -> list[str]:
    """Return one prompt per scene, with the openings in turn."""
    return [caption(s, opening=OPENINGS[i % len(OPENINGS)]) for i, s in enumerate(asked)]
