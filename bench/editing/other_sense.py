"""Words that say something else too: python -m bench.editing.other_sense [--model emoji-dit].

A concept's token embeddings may move (`--embeddings`), and other names may be made of the same
tokens: "hot dog" of that of "dog". Random objects that share a token with others are each updated
to an object that shares none. Their relatives are kept names, or in no list at all, as the other
sense of a word mostly is. Printed, over images that the unedited model draws right: concepts and
relatives (`kept`) still recognized, H of both, and recognized replacements.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.editing.batch import EDITS, MAIN
from bench.editing.drawn import (
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
from engine.editing.solve import solve_edit
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.vocabulary import Phrasebook, read_phrasebook
from schemas.concept import Concept

ABOUT = ("model", "relatives", "edit")
LISTED, UNLISTED = "listed", "in no list"


def relatives_of(model: Diffusion, names: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return, for each name, the others that share a token with it in the first text encoder."""
    tokenizer = model.encoders[0].tokenizer
    tokens = {n: frozenset(tokenizer(n, add_special_tokens=False)["input_ids"]) for n in names}
    return {
        name: frozenset(o for o in names if o != name and tokens[o] & own)
        for name, own in tokens.items()
    }


def choose_concepts(
    relatives: Mapping[str, frozenset[str]], *, seed: int
) -> tuple[tuple[Concept, ...], frozenset[str]]:
    """Return concepts of which none is another's relative, and all of their relatives."""
    drawn = random.Random(seed)
    chosen: list[str] = []
    for name in drawn.sample(sorted(relatives), len(relatives)):
        if relatives[name] and relatives[name].isdisjoint(chosen):
            chosen.append(name)
    others = frozenset[str]().union(*(relatives[name] for name in chosen))
    free = [name for name in sorted(relatives) if name not in others and not relatives[name]]
    replacements = drawn.sample(free, len(chosen))
    concepts = [
        Concept(concept=name, replacement=other)
        for name, other in zip(chosen, replacements, strict=True)
    ]
    return tuple(concepts), others


def without(book: Phrasebook, names: frozenset[str]) -> Phrasebook:
    """Return the words of a model without some objects."""
    return replace(book, objects=tuple(name for name in book.objects if name not in names))


def measure(drawing: Drawing, seeds: Sequence[int], images: int) -> list[Row]:
    """Return a row for each edit and each kind of list, pooled over what `seeds` choose."""
    model = drawing.model
    book = read_phrasebook(source_folder(model.name))
    relatives = relatives_of(model, book.objects)
    outcomes: dict[tuple[str, str], list[Outcome]] = {}
    for seed in seeds:
        concepts, others = choose_concepts(relatives, seed=seed)
        asked, names = asked_of(model, concepts, of_list=str(seed), images=images)
        right = drawing.right([a for a in asked if a.is_erased or a.prompt.name in others], names)
        for known, words in ((LISTED, book), (UNLISTED, without(book, others))):
            for name in MAIN[model.name]:
                edit = solve_edit(model, concepts, book=words, settings=EDITS[name])
                found = drawing.outcomes(right, names, edit.weights)
                outcomes.setdefault((known, name), []).extend(found)
    return [
        row_of(found, model=model.name, relatives=known, edit=name)
        for (known, name), found in outcomes.items()
    ]


def main() -> None:
    """Command line."""
    options = options_of(str(__doc__)).parse_args()
    drawing = opened(options)
    rows = measure(drawing, options.seeds, options.images)
    print(heading(ABOUT))
    for row in rows:
        print(line(row, ABOUT))
    write(rows, drawing, options.json)


if __name__ == "__main__":
    main()
