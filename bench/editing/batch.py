"""How well a batch edit works: python -m bench.editing.batch [--counts 1 10] [--edits kept-mlp].

Random objects of emoji-sd are each updated to a kept object; several random choices are pooled.
Printed is what the scorer recognizes by forced choice (engine/evaluation/pairs.py) in images of
unseen prompts: concepts still recognized, kept names still recognized, their harmonic mean H with a
95 % interval, and recognized replacements. `of right before` counts only images that the unedited
model draws right; MACE and SPEED chose concepts that their model draws right in over 99 % of
images, emoji-sd does in about 90 %.
"""

import argparse
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from engine.editing.covariance import known_sums
from engine.editing.delta import replaced
from engine.editing.published import published_edit
from engine.editing.solve import EditSolution, solve_edit
from engine.evaluation.pairs import Pair, draw_pairs
from engine.evaluation.prompts import subjects
from engine.evaluation.wordings import choices, read_words
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.opening import open_model
from engine.model.registry import default_scorer
from engine.model.scorer import open_scorer
from engine.model.vocabulary import Phrasebook, read_phrasebook
from engine.statistics.bootstrap import harmonic_interval, harmonic_mean
from jobs.editing.request import default_numerics
from schemas.concept import Concept
from schemas.edit_settings import EditSettings
from schemas.errors import ConceptError
from schemas.evaluation import EFFICACY, EvaluationPrompt, Group
from schemas.prompt_set import PromptSet

ATTENTION = ("text_encoder.layers.0.self_attn",)
MLP = ("text_encoder.layers.0.mlp",)
MLPS = (*MLP, "text_encoder.layers.1.mlp")
"""The default where a run locates layer 0."""
LAYERS = tuple(f"text_encoder.layers.{n}.{kind}" for n in range(4) for kind in ("self_attn", "mlp"))
"""Every attention and MLP of emoji-sd's text encoder, in order: each is solved for the change that
the earlier ones left, so the last one's output matches the encoder's last layer (HiRM's choice)."""
EDITS = {
    "published": EditSettings(components=ATTENTION, objective="published", ridge=0.01),
    "identity": EditSettings(components=ATTENTION, preserve=0.0),
    "covariance": EditSettings(components=ATTENTION, preserve=0.0, general=6.0),
    "kept": EditSettings(components=ATTENTION),
    "identity-mlp": EditSettings(components=MLP, preserve=0.0),
    "covariance-mlp": EditSettings(components=MLP, preserve=0.0, general=6.0),
    "kept-mlp": EditSettings(components=MLP),
    "kept-mlp-5": EditSettings(components=MLP, preserve=5.0),
    "kept-both": EditSettings(components=ATTENTION + MLP),
    "kept-mlps": EditSettings(components=MLPS),
    "tokens-mlps": EditSettings(components=MLPS, preserve=10.0, embeddings=True),
    "sequential-5": EditSettings(components=MLPS),
    "sequential-20": EditSettings(components=MLPS),
    "kept-layers": EditSettings(components=LAYERS),
    "null-mlp": EditSettings(components=MLP, preserve=0.0),
}
"""Edits named by the anchor and, unless it is the attention, the component; `null-*` keeps
exactly, `tokens-*` moves token embeddings first, and `sequential-N` edits N batches one after
another, as published, each on the model that the earlier ones left."""


def choose_concepts(book: Phrasebook, count: int, *, seed: int) -> tuple[Concept, ...]:
    """Return `count` objects at random, each with a kept object as its replacement."""
    names = random.Random(seed).sample(book.objects, len(book.objects))
    kept = names[count:]
    return tuple(
        Concept(concept=name, replacement=kept[n % len(kept)])
        for n, name in enumerate(names[:count])
    )


def solved_edit(
    model: Diffusion, concepts: Sequence[Concept], name: str, settings: EditSettings
) -> EditSolution:
    """Return an edit by its name in EDITS; ConceptError if what it keeps exactly leaves no
    freedom."""
    book = read_phrasebook(source_folder(model.name))
    if settings.objective == "published":
        return published_edit(
            model, concepts, component=settings.components[0], ridge=settings.ridge
        )
    if name.startswith("null"):
        removed = {c.concept for c in concepts}
        exactly = tuple(Concept(concept=o) for o in book.objects if o not in removed)
        settings = replace(settings, exactly=exactly)
    if name.startswith("sequential"):
        return sequential_edit(model, concepts, int(name.rpartition("-")[2]), settings, book=book)
    general = known_sums(model, settings, book=book)
    return solve_edit(model, concepts, book=book, settings=settings, general=general)


def sequential_edit(
    model: Diffusion,
    concepts: Sequence[Concept],
    batches: int,
    settings: EditSettings,
    *,
    book: Phrasebook,
) -> EditSolution:
    """Return the edit of `batches` equal parts of the concepts, each on the model edited so far.

    What is kept is what that model says, so that earlier parts stay edited.
    """
    weights: dict[str, torch.Tensor] = {}
    solved: list[EditSolution] = []
    size = -(-len(concepts) // batches)
    for start in range(0, len(concepts), size):
        part = concepts[start : start + size]
        with replaced(model, weights):
            solved.append(solve_edit(model, part, book=book, settings=settings))
        weights |= solved[-1].weights
    return replace(
        solved[-1],
        weights=weights,
        originals=solved[0].originals,
        changes={
            name: sum((each.changes[name] for each in solved), torch.zeros((), dtype=torch.float64))
            for name in weights
        },
        key_seconds=sum(each.key_seconds for each in solved),
        solve_seconds=sum(each.solve_seconds for each in solved),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """The shares recognized after an edit, over all images or those right before it."""

    still_recognised: float
    """Concepts still recognized; lower is better."""
    kept: float
    harmonic_mean: float
    interval: tuple[float, float] | None
    """95 % of the harmonic mean, resampled by name."""


def shares(
    asked: Sequence[tuple[str, EvaluationPrompt]], pairs: Sequence[Pair], *, of_right: bool
) -> Shares:
    """Return the shares over concepts and kept names; each name is one cluster."""
    sums: dict[bool, dict[str, list[int]]] = {True: {}, False: {}}
    for (subject, prompt), pair in zip(asked, pairs, strict=True):
        if of_right and pair.before.chosen != prompt.name:
            continue
        row = sums[prompt.group in EFFICACY].setdefault(subject, [0, 0])
        row[0] += pair.after.chosen == prompt.name
        row[1] += 1
    erased_CK, kept_CK = (
        np.array(list(sums[side].values()), dtype=float) for side in (True, False)
    )
    still_recognised, kept = (float(s[:, 0].sum() / s[:, 1].sum()) for s in (erased_CK, kept_CK))
    return Shares(
        still_recognised=still_recognised,
        kept=kept,
        harmonic_mean=float(harmonic_mean(still_recognised, kept)),
        interval=harmonic_interval(erased_CK, kept_CK, np.random.default_rng(0)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The prompts of an edit and the outcomes, over all choices of concepts."""

    asked: list[tuple[str, EvaluationPrompt]]
    """Each prompt with its concept or kept name and the seed that chose the concepts."""
    pairs: list[Pair]
    reached: list[bool]
    """For each concept's prompt, whether the replacement is recognized."""
    seconds: float
    """Time to collect keys and solve."""


def draw(model: Diffusion, count: int, seed: int, options: argparse.Namespace) -> dict[str, Drawn]:
    """Return the outcome of each edit of `count` concepts; one that keeps too much exactly has
    none."""
    folder = source_folder(model.name)
    concepts = choose_concepts(read_phrasebook(folder), count, seed=seed)
    words = read_words(folder, concepts)
    asked = [
        (subject.name, prompt)
        for subject in subjects(concepts, words, prompt_set=PromptSet(options.prompts))
        for prompt in subject.prompts
        if prompt.group in (*EFFICACY, Group.KEPT)
    ]
    edits = {}
    for name in options.edits:
        with suppress(ConceptError):
            edits[name] = solved_edit(model, concepts, name, EDITS[name])
    numerics = default_numerics(model.name)
    pairs = draw_pairs(
        model,
        open_scorer(default_scorer(model.name)),
        {name: solved.weights for name, solved in edits.items()},
        [prompt for _, prompt in asked],
        seed=seed,
        names=choices(concepts, words),
        numerics=numerics.model_copy(update={"steps": options.steps or numerics.steps}),
        rows=32,
    )
    replacement = {concept.concept: concept.replacement for concept in concepts}
    return {
        name: Drawn(
            asked=[(f"{seed} {subject}", prompt) for subject, prompt in asked],
            pairs=pairs[name],
            reached=[
                pair.after.chosen == replacement[subject]
                for (subject, prompt), pair in zip(asked, pairs[name], strict=True)
                if prompt.group in EFFICACY
            ],
            seconds=solved.key_seconds + solved.solve_seconds,
        )
        for name, solved in edits.items()
    }


def row_of(count: int, edit: str, parts: Sequence[Drawn]) -> dict[str, object]:
    """Return an edit's measures, pooled over choices of concepts."""
    asked = [item for part in parts for item in part.asked]
    pairs = [pair for part in parts for pair in part.pairs]
    reached = [hit for part in parts for hit in part.reached]
    everything, right = (shares(asked, pairs, of_right=right) for right in (False, True))
    low, high = right.interval or (None, None)
    return {
        "count": count,
        "edit": edit,
        "still_recognised": everything.still_recognised,
        "kept": everything.kept,
        "H": everything.harmonic_mean,
        "still_recognised_of_right": right.still_recognised,
        "kept_of_right": right.kept,
        "H_of_right": right.harmonic_mean,
        "H_low": low,
        "H_high": high,
        "replacement": sum(reached) / len(reached),
        "images": len(pairs),
        "seconds": max(part.seconds for part in parts),
    }


def measure(model: Diffusion, count: int, options: argparse.Namespace) -> list[dict[str, object]]:
    """Return one row per edit of `count` concepts."""
    drawn = [draw(model, count, seed, options) for seed in options.seeds]
    rows = []
    for edit in options.edits:
        parts = [by_edit[edit] for by_edit in drawn if edit in by_edit]
        nothing = {"count": count, "edit": edit, "error": "keeps too much exactly"}
        rows.append(row_of(count, edit, parts) if parts else nothing)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 5, 10, 25, 50])
    parser.add_argument("--edits", nargs="+", choices=list(EDITS), default=list(EDITS))
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2, 3], help="to choose concepts"
    )
    parser.add_argument("--steps", type=int, help="the model's own by default")
    parser.add_argument("--prompts", choices=[p.value for p in PromptSet], default="small")
    parser.add_argument("--json", type=Path, help="file that gets the rows")
    options = parser.parse_args()
    model, rows = open_model("emoji-sd"), []
    with torch.inference_mode():
        for count in options.counts:
            found = measure(model, count, options)
            rows += found
            for row in found:
                print(
                    "  ".join(
                        f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}"
                        for k, v in row.items()
                    ),
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
