"""One concept at a time: python -m bench.editing.each [--edits kept-mlp layers] [--objects 12].

Each style of emoji-sd is removed and updated to each other style; objects, evenly spread, are
removed and updated to others. Printed for each edit of `bench.editing.batch`, pooled over concepts:
by group of docs/evaluating.md, the share of images that show the name in their prompt, before and
after; for updates, the share that shows the replacement; and 95 % intervals by a bootstrap over
concepts.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from bench.editing.batch import EDITS, solved_edit
from engine.evaluation.pairs import Pair, draw_pairs
from engine.evaluation.prompts import subjects
from engine.evaluation.wordings import Words, choices, read_words
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.opening import open_model
from engine.model.registry import default_scorer
from engine.model.scorer import Scorer, open_scorer
from engine.model.vocabulary import Phrasebook, read_phrasebook
from engine.statistics.bootstrap import ratio_interval
from jobs.editing.request import default_numerics
from schemas.concept import Concept, ConceptKind
from schemas.evaluation import EFFICACY, EvaluationPrompt, Group
from schemas.numerics import Numerics

Counts = dict[tuple[str, str, str], list[list[int]]]
"""[images right after, images] of each concept, by case, edit and measure."""
KEPT = 4
"""Number of subjects that are drawn of each kept group, evenly spread."""


def cases(book: Phrasebook, objects: int) -> Iterator[tuple[str, Concept]]:
    """Yield each concept with the name of its case."""
    for style in book.styles:
        yield "remove a style", Concept(concept=style, kind=ConceptKind.STYLE)
        for other in book.styles:
            if other != style:
                update = Concept(concept=style, replacement=other, kind=ConceptKind.STYLE)
                yield "update a style", update
    names = [book.objects[n * len(book.objects) // objects] for n in range(objects)]
    for name, other in zip(names, [*names[1:], names[0]], strict=True):
        yield "remove an object", Concept(concept=name)
        yield "update an object", Concept(concept=name, replacement=other)


def asked_of(concept: Concept, words: Words) -> list[EvaluationPrompt]:
    """Return the prompts of a concept and of some kept subjects."""
    own, *others = [subject.prompts for subject in subjects([concept], words)]
    found = list(own)
    for group in (Group.KEPT, Group.UNRELATED):
        kept = [prompts for prompts in others if prompts[0].group is group]
        found += [p for prompts in kept[:: -(-len(kept) // KEPT) or 1] for p in prompts]
    return found


def counted(
    concept: Concept, prompts: Sequence[EvaluationPrompt], pairs: Sequence[Pair]
) -> Mapping[str, list[int]]:
    """Return [shown after, images] by measure; for kept names, over the images right before.

    Images of the concept's prompts count as `still_recognised`, and of updates as `replacement`,
    whatever the unedited model drew.
    """
    by_measure: dict[str, list[int]] = {}
    for prompt, pair in zip(prompts, pairs, strict=True):
        efficacy = prompt.group in EFFICACY
        if not efficacy and pair.before.chosen != prompt.name:
            continue
        seen = {"still_recognised" if efficacy else prompt.group.value: prompt.name}
        if efficacy and concept.replacement:
            seen["replacement"] = concept.replacement
        for measure, name in seen.items():
            row = by_measure.setdefault(measure, [0, 0])
            row[0] += pair.after.chosen == name
            row[1] += 1
    return by_measure


def measure(
    model: Diffusion, scorer: Scorer, options: argparse.Namespace, numerics: Numerics
) -> Counts:
    """Return the counts of every case, edit and measure."""
    counts: Counts = {}
    book = read_phrasebook(source_folder(model.name))
    for case, concept in cases(book, options.objects):
        edits = {name: solved_edit(model, [concept], name, EDITS[name]) for name in options.edits}
        words = read_words(source_folder(model.name), [concept])
        prompts, names = asked_of(concept, words), choices([concept], words)
        for seed in range(options.seeds):
            pairs = draw_pairs(
                model, scorer, {name: edit.weights for name, edit in edits.items()}, prompts,
                seed=seed, numerics=numerics, rows=32, names=names,
            )  # fmt: skip
            for name in options.edits:
                for what, row in counted(concept, prompts, pairs[name]).items():
                    counts.setdefault((case, name, what), []).append(row)
        print(f"{case}: {concept.concept} {concept.replacement}", flush=True)
    return counts


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--edits", nargs="+", choices=list(EDITS), default=["kept", "kept-mlp"])
    parser.add_argument("--objects", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, help="the model's own by default")
    parser.add_argument("--json", type=Path, help="file that gets the rows")
    options = parser.parse_args()
    model = open_model("emoji-sd")
    numerics = default_numerics(model.name)
    numerics = numerics.model_copy(update={"steps": options.steps or numerics.steps})
    scorer = open_scorer(default_scorer(model.name))
    with torch.inference_mode():
        counts = measure(model, scorer, options, numerics)
    rows = []
    for (case, edit, what), found in sorted(counts.items()):
        # The seeds of a concept are one cluster.
        clusters = np.array(found, dtype=float).reshape(-1, options.seeds, 2).sum(1)
        share = clusters[:, 0].sum() / clusters[:, 1].sum()
        low, high = ratio_interval(clusters, np.random.default_rng(0)) or (None, None)
        counts_of = {"concepts": len(clusters), "images": int(clusters[:, 1].sum())}
        shares = {"share": share, "low": low, "high": high}
        rows.append({"case": case, "edit": edit, "measure": what, **shares, **counts_of})
        print("  ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in rows[-1].values()))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
