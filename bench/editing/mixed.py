"""Objects, styles and colors in one file: python -m bench.editing.mixed [--generated 985].

For each kind, the concepts of that kind against everything that is kept, by the edit of the whole
file; with `--own` also those of a kind by an edit of a file of their own, against the kept names of
that kind. `--pairs N` draws each edited object next to N kept ones, either first in turn: `kept` is
then the share of the kept ones, also where the unedited model is asked for the replacement.
`--every` takes thirds of all names of the model in place of random ones, so that three lists (seeds
0, 1, 2) edit every name that exists once; `--generated` fills up the file with names of made-up
words, which nobody draws. The seconds of each edit are printed.
"""

import argparse
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from bench.editing.batch import EDITS, MAIN, weights_of_edit
from bench.editing.drawn import (
    Asked,
    Drawing,
    Outcome,
    Row,
    asked_of,
    heading,
    line,
    opened,
    options_of,
    row_of,
    write,
)
from engine.editing.prompts import kept_names
from engine.evaluation.wordings import fill
from engine.model.hub import source_folder
from engine.model.vocabulary import Phrasebook, read_phrasebook, read_vocabulary, with_article
from schemas.concept import Concept, ConceptKind
from schemas.evaluation import EvaluationPrompt, Group
from schemas.prompt_set import PromptSet

SIZES = {ConceptKind.OBJECT: 10, ConceptKind.STYLE: 2, ConceptKind.COLOR: 2}
"""Concepts of each kind in one file."""
THIRDS = 3
ABOUT = ("model", "edit", "kind")
"""Columns that name the row of a table."""
TWO_OBJECTS = "the other of two objects"


@dataclass(frozen=True, slots=True)
class Part:
    """The images of one kind by an edit of one list."""

    edit: str
    kind: str
    outcomes: list[Outcome]


def names_of(model: str) -> Mapping[ConceptKind, Sequence[str]]:
    """Return all names of an embedded model, by kind."""
    vocabulary = read_vocabulary(source_folder(model))
    assert vocabulary is not None
    return {
        ConceptKind.OBJECT: vocabulary.objects,
        ConceptKind.STYLE: vocabulary.styles,
        ConceptKind.COLOR: [color for color in vocabulary.colors if color != "natural"],
    }


def mixed_concepts(
    names: Mapping[ConceptKind, Sequence[str]], seed: int, *, every: bool
) -> list[Concept]:
    """Return concepts of each kind, each with a kept name of the kind as its replacement.

    `every`: of each kind the third of the names whose number is `seed`, in one order.
    """
    concepts: list[Concept] = []
    for kind, listed in names.items():
        shuffled = random.Random(0 if every else seed).sample(listed, len(listed))
        edited = shuffled[seed::THIRDS] if every else shuffled[: SIZES[kind]]
        kept = [name for name in shuffled if name not in edited]
        concepts += [
            Concept(concept=name, replacement=kept[n % len(kept)], kind=kind)
            for n, name in enumerate(edited)
        ]
    return concepts


def made_up(count: int, concepts: Sequence[Concept], book: Phrasebook) -> list[Concept]:
    """Return `count` objects of made-up words of three syllables, each with a kept object as its
    replacement."""
    drawn = random.Random(0)
    kept = kept_names(concepts, kind=ConceptKind.OBJECT, book=book)
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(drawn.choice("bdfgklmnprstvz") + drawn.choice("aeiou") for _ in "123")] = None
    return [Concept(concept=w, replacement=kept[n % len(kept)]) for n, w in enumerate(words)]


def two_objects(
    concepts: Sequence[Concept], kept: Sequence[str], partners: int, *, of_list: str, images: int
) -> list[Asked]:
    """Return prompts of a concept and a kept object, each asked for both; either may come first.

    Once edited, the kept one is judged next to the concept's replacement.
    """
    asked: list[Asked] = []
    for number, concept in enumerate(concepts):
        others = [name for name in kept if name != concept.replacement]
        start = number * partners
        for turn in range(partners):
            other = others[(start + turn) % len(others)]
            for seed in range(images):
                asked += [
                    Asked(
                        cluster=f"{of_list} {concept.concept}",
                        kind=ConceptKind.OBJECT,
                        prompt=prompt,
                        seed=seed,
                        replacement=concept.replacement,
                    )
                    for prompt in both_asked(concept, other, turn % 2)
                ]
    return asked


def both_asked(concept: Concept, other: str, place: int) -> tuple[EvaluationPrompt, ...]:
    """Return the prompt of a concept at a place (0 or 1) and another object, asked for each."""

    def text(said: str, neighbor: str) -> str:
        return "a drawing of " + " and ".join([neighbor, said] if place else [said, neighbor])

    of_concept, of_other = with_article(concept.concept), with_article(other)
    prompt = EvaluationPrompt(
        group=Group.CONCEPT,
        text=text(of_concept, of_other),
        template=text("{article}", of_other),
        kind=ConceptKind.OBJECT,
        name=concept.concept,
    )
    asks_other = {
        "group": Group.OBJECT,
        "template": text(of_concept, "{article}"),
        "edited_template": text(with_article(concept.replacement), "{article}"),
        "name": other,
    }
    return prompt, prompt.model_copy(update=asks_other)


def rows_of_list(drawing: Drawing, seed: int, options: argparse.Namespace) -> list[Part]:
    """Return the images of the edits of one list, as parts of the table's rows."""
    model, edit, images = drawing.model, options.edit, options.images
    book = read_phrasebook(source_folder(model.name))
    concepts = mixed_concepts(names_of(model.name), seed, every=options.every)
    asked, names = asked_of(
        model, concepts, of_list=str(seed), images=images, prompt_set=PromptSet(options.prompts)
    )
    right = drawing.right(asked, names)
    start = time.perf_counter()
    weights = weights_of_edit(
        model, [*concepts, *made_up(options.generated, concepts, book)], name=edit
    )
    print(f"list {seed}: edited in {time.perf_counter() - start:.1f} s", flush=True)
    drawn = drawing.outcomes(right, names, weights)
    parts = [Part("one file", kind, _of_kind(drawn, kind)) for kind in SIZES]
    for kind in SIZES if options.own else ():
        own = [c for c in concepts if c.kind is kind]
        alone = weights_of_edit(model, own, name=edit)
        of_kind = [a for a in right if a.kind is kind]
        parts.append(Part("own file", kind, drawing.outcomes(of_kind, names, alone)))
    if options.pairs:
        objects = [c for c in concepts if c.kind is ConceptKind.OBJECT]
        kept = kept_names(concepts, kind=ConceptKind.OBJECT, book=book)
        both = two_objects(objects, kept, options.pairs, of_list=str(seed), images=images)
        right = drawing.right(both, names)
        parts.append(Part("one file", TWO_OBJECTS, drawing.outcomes(right, names, weights)))
        said = [replacement_said(a) for a in right if not a.is_erased]
        parts.append(Part("none, replacement said", TWO_OBJECTS, drawing.outcomes(said, names, {})))
    return parts


def replacement_said(asked: Asked) -> Asked:
    """Return a prompt that says the concept's replacement in its place: what the unedited model
    then keeps of the other object bounds what an edit may be asked to keep."""
    text = fill(str(asked.prompt.edited_template), str(asked.prompt.name))
    return replace(asked, prompt=asked.prompt.model_copy(update={"text": text}))


def _of_kind(outcomes: Sequence[Outcome], kind: ConceptKind) -> list[Outcome]:
    """Return the outcomes of concepts of a kind and of everything that is kept."""
    return [o for o in outcomes if o.asked.kind is kind or not o.asked.is_erased]


def lost(parts: Sequence[Part]) -> list[str]:
    """Return the names that the edits of whole files fail on, with their lists: kept names that
    are drawn in less than half of their images, and concepts in half or more."""
    found: dict[str, list[bool]] = {}
    for part in parts:
        if part.edit == "one file" and part.kind != TWO_OBJECTS:
            for o in part.outcomes:
                good = (o.shown == o.asked.prompt.name) != o.asked.is_erased
                found.setdefault(o.asked.cluster, []).append(good)
    return sorted(name for name, good in found.items() if 2 * sum(good) <= len(good))


def main() -> None:
    """Command line."""
    parser = options_of(str(__doc__))
    parser.add_argument("--edit", choices=list(EDITS), help="the model's first by default")
    parser.add_argument("--prompts", choices=[p.value for p in PromptSet], default="full")
    parser.add_argument("--own", action="store_true", help="each kind in a file of its own too")
    parser.add_argument("--pairs", type=int, default=0, help="kept objects next to each edited one")
    parser.add_argument("--every", action="store_true", help="thirds of all names; seeds 0 1 2")
    parser.add_argument("--generated", type=int, default=0, help="made-up names in the file")
    options = parser.parse_args()
    if options.every and not {*options.seeds} <= {*range(THIRDS)}:
        parser.error("--every takes the seeds 0, 1 and 2")
    options.edit = options.edit or MAIN[options.model][0]
    drawing = opened(options)
    with torch.inference_mode():
        parts = [part for seed in options.seeds for part in rows_of_list(drawing, seed, options)]
    print(heading(ABOUT))
    rows: list[Row] = []
    for edit, kind in dict.fromkeys((part.edit, part.kind) for part in parts):
        found = [o for p in parts if (p.edit, p.kind) == (edit, kind) for o in p.outcomes]
        rows.append(row_of(found, model=options.model, edit=f"{options.edit}, {edit}", kind=kind))
        print(line(rows[-1], ABOUT), flush=True)
    print("failed:", ", ".join(lost(parts)) or "none")
    write(rows, drawing, options.json)


if __name__ == "__main__":
    main()
