"""Shares of images that an edited model draws of prompts that the unedited one draws right.

Images are judged by forced choice (engine/evaluation/pairs.py) at prompts that no edit was fitted
on. What the unedited model draws wrong is not drawn with an edit: MACE and SPEED chose concepts
that their model draws right in over 99 % of images, the embedded ones do in about 90 %. Intervals
are of 95 %, over names: the images of a name in one list of concepts are one cluster.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.editing.delta import replaced
from engine.evaluation.pairs import Names, Weights, judged
from engine.evaluation.prompts import subjects
from engine.evaluation.wordings import choices, read_words
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.opening import open_model
from engine.model.registry import EMBEDDED, default_scorer
from engine.model.sampling import generate
from engine.model.scorer import open_scorer
from engine.statistics.bootstrap import harmonic_interval, harmonic_mean, ratio_interval
from jobs.editing.request import default_numerics
from schemas.concept import Concept, ConceptKind
from schemas.evaluation import EFFICACY, EvaluationPrompt, Group
from schemas.prompt_set import PromptSet

TOGETHER = 32
"""Images that are drawn together."""
Solve = Callable[[Diffusion, Sequence[Concept]], Weights]
"""Returns the edited weights of a model for concepts."""
Row = dict[str, object]
"""A row of a table: what was edited how, and the shares of `row_of`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A prompt that is drawn from one latent."""

    cluster: str
    """The list of concepts and the name that the prompt is about."""
    kind: ConceptKind
    """The kind of that name."""
    prompt: EvaluationPrompt
    seed: int
    replacement: str | None = None
    """The name that a concept's prompt should show once it is edited; None for a kept name."""

    @property
    def is_erased(self) -> bool:
        """Whether the prompt is of a concept, not of a name that is kept."""
        return self.prompt.group in EFFICACY


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An edited model's image of a prompt whose unedited image is right."""

    asked: Asked
    shown: str | None
    """The name that its image shows."""


class Drawing:
    """Draws images of a model; those of the unedited model are drawn once for all edits."""

    def __init__(self, model: Diffusion, *, steps: int | None = None) -> None:
        numerics = default_numerics(model.name)
        self.model = model
        self.images = 0
        """Number of images drawn so far."""
        self._numerics = numerics.model_copy(update={"steps": steps or numerics.steps})
        self._scorer = open_scorer(default_scorer(model.name))
        self._before: dict[tuple[str, str | None, int], str | None] = {}

    def right(self, asked: Iterable[Asked], names: Names) -> list[Asked]:
        """Return those whose unedited image shows their name."""
        by_key = {(a.prompt.text, a.prompt.template, a.seed): a for a in asked}
        new = {key: a for key, a in by_key.items() if key not in self._before}
        self._before |= zip(new, self._shown([*new.values()], names), strict=True)
        return [a for key, a in by_key.items() if self._before[key] == a.prompt.name]

    def outcomes(self, right: Sequence[Asked], names: Names, weights: Weights) -> list[Outcome]:
        """Return the names that a model with these weights shows in place of `right`."""
        with replaced(self.model, weights):
            shown = self._shown(right, names, edited=True)
        return [Outcome(asked=a, shown=name) for a, name in zip(right, shown, strict=True)]

    def _shown(
        self, asked: Sequence[Asked], names: Names, *, edited: bool = False
    ) -> list[str | None]:
        place: dict[tuple[str, int], int] = {}
        at = [place.setdefault((a.prompt.text, a.seed), len(place)) for a in asked]
        if not place:
            return []
        texts, seeds = zip(*place, strict=True)
        images_RCHW = generate(
            self.model, texts, seeds=seeds, numerics=self._numerics, rows=TOGETHER
        )
        self.images += len(place)
        prompts = [a.prompt for a in asked]
        templates = [(edited and p.edited_template) or p.template for p in prompts]
        sides = judged(images_RCHW[at], prompts, templates, names=names, scorer=self._scorer)
        return [side.chosen for side in sides]


def asked_of(
    model: Diffusion,
    concepts: Sequence[Concept],
    *,
    of_list: str,
    images: int,
    prompt_set: PromptSet = PromptSet.SMALL,
) -> tuple[list[Asked], Names]:
    """Return the prompts of concepts and of all else that is kept, and the names to choose from.

    Each with `images` seeds. A kept name has one prompt of each wording; a concept has one of each
    in the small set, two and its forms in the full one.
    """
    words = read_words(source_folder(model.name), concepts)
    listed = {
        wanted: subjects(concepts, words, prompt_set=wanted)
        for wanted in (prompt_set, PromptSet.FULL)
    }
    replacement = {(c.kind, c.concept): c.replacement_text for c in concepts}
    asked = [
        Asked(
            cluster=f"{of_list} {subject.kind} {subject.name}",
            kind=subject.kind,
            prompt=prompt,
            seed=seed,
            replacement=replacement.get((subject.kind, subject.name)),
        )
        for group, wanted in ((EFFICACY, prompt_set), ((Group.KEPT,), PromptSet.FULL))
        for subject in listed[wanted]
        for prompt in subject.prompts
        for seed in range(images)
        if prompt.group in group and subject.kind
    ]
    return asked, choices(concepts, words)


def row_of(outcomes: Sequence[Outcome], **about: object) -> Row:
    """Return the shares over concepts and kept names, with their intervals by name."""
    erased = [o for o in outcomes if o.asked.is_erased]
    still_C2, kept_C2, replaced_C2 = (
        _by_cluster(part)
        for part in (
            [(o, o.shown == o.asked.prompt.name) for o in erased],
            [(o, o.shown == o.asked.prompt.name) for o in outcomes if not o.asked.is_erased],
            [(o, o.shown == o.asked.replacement) for o in erased],
        )
    )
    row: Row = dict(about)
    for name, sums_C2 in (
        ("still_recognised", still_C2), ("kept", kept_C2), ("replacement", replaced_C2)
    ):  # fmt: skip
        row[name] = _share(sums_C2)
        row[f"{name}_interval"] = ratio_interval(sums_C2, np.random.default_rng(0))
    both = len(still_C2) and len(kept_C2)
    row["H"] = float(harmonic_mean(_share(still_C2), _share(kept_C2))) if both else None
    row["H_interval"] = (
        harmonic_interval(still_C2, kept_C2, np.random.default_rng(0)) if both else None
    )
    return {**row, "erased_images": len(erased), "kept_images": len(outcomes) - len(erased)}


def _by_cluster(outcomes: Iterable[tuple[Outcome, bool]]) -> NDArray[np.float64]:
    sums: dict[str, list[int]] = {}
    for outcome, hit in outcomes:
        row = sums.setdefault(outcome.asked.cluster, [0, 0])
        row[0] += hit
        row[1] += 1
    return np.array(list(sums.values()), dtype=float).reshape(-1, 2)


def _share(sums_C2: NDArray[np.float64]) -> float:
    return float(sums_C2[:, 0].sum() / sums_C2[:, 1].sum()) if len(sums_C2) else float("nan")


SHARES = ("still_recognised", "kept", "H", "replacement")
COUNTS = ("erased_images", "kept_images")


def heading(about: Sequence[str]) -> str:
    """Return the first two lines of a table in Markdown."""
    cells = [name.replace("_", " ") for name in (*about, *SHARES, *COUNTS)]
    return "| " + " | ".join(cells) + " |\n" + "|---" * len(cells) + "|"


def line(row: Mapping[str, object], about: Sequence[str]) -> str:
    """Return a row of the table, each share with its interval."""
    shares = [_with_interval(row[share], row[f"{share}_interval"]) for share in SHARES]
    cells = [*(str(row[name]) for name in about), *shares, *(str(row[name]) for name in COUNTS)]
    return "| " + " | ".join(cells) + " |"


def _with_interval(share: object, interval: object) -> str:
    if not isinstance(share, float) or np.isnan(share):
        return ""
    if not isinstance(interval, (tuple, list)):
        return f"{share:.3f}"
    low, high = interval
    return f"{share:.3f} ({low:.2f} to {high:.2f})"


def options_of(about: str) -> argparse.ArgumentParser:
    """Return a parser of the options that all these benches have."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--model", choices=EMBEDDED, default="emoji-sd")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[101, 102, 103], help="to choose concepts"
    )
    parser.add_argument("--images", type=int, default=2, help="seeds of every prompt")
    parser.add_argument("--steps", type=int, help="the model's own by default")
    parser.add_argument("--json", type=Path, help="file that gets the rows")
    return parser


def opened(options: argparse.Namespace) -> Drawing:
    """Return the drawing of the model that is asked for."""
    return Drawing(open_model(options.model), steps=options.steps)


def write(rows: Sequence[Row], drawing: Drawing, path: Path | None) -> None:
    """Say how many images were drawn, and write the rows."""
    print(f"{drawing.images} images, torch threads {torch.get_num_threads()}")
    if path:
        path.write_text(json.dumps(rows, indent=2) + "\n")
