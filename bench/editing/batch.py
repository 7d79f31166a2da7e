"""How well a batch edit works: python -m bench.editing.batch [--model emoji-dit] [--counts 10].

Random objects of an embedded model are each updated to a kept object; the lists that `--seeds`
choose are pooled. Printed, over images that the unedited model draws right (bench.editing.drawn):
concepts still recognized, kept names still recognized, their harmonic mean H, and recognized
replacements. A kept name has three prompts, a concept three.
"""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import torch

from bench.editing.drawn import (
    Asked,
    Drawing,
    Outcome,
    Row,
    Solve,
    asked_of,
    heading,
    line,
    opened,
    options_of,
    row_of,
    write,
)
from engine.editing.covariance import known_sums
from engine.editing.delta import replaced
from engine.editing.published import published_edit
from engine.editing.solve import EditSolution, solve_edit
from engine.evaluation.pairs import Names, Weights
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.vocabulary import Phrasebook, read_phrasebook
from schemas.concept import Concept
from schemas.edit_settings import EditSettings
from schemas.errors import ConceptError

ABOUT = ("model", "objects", "edit")
"""Columns that name the row of a table."""
ATTENTION = ("text_encoder.layers.0.self_attn",)
MLP = ("text_encoder.layers.0.mlp",)
MLPS = (*MLP, "text_encoder.layers.1.mlp")
"""The default where a run locates layer 0."""
LAYERS = tuple(f"text_encoder.layers.{n}.{kind}" for n in range(4) for kind in ("self_attn", "mlp"))
"""Every attention and MLP of emoji-sd's text encoder, in order: each is solved for the change that
the earlier ones left, so the last one's output matches the encoder's last layer (HiRM's choice)."""
PROJECTION = ("transformer.context_embedder",)
PROJECTIONS = (*PROJECTION, "transformer.time_text_embed.text_embedder")
"""The default of a transformer: its text projection and that of the pooled embedding."""
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
    "projection": EditSettings(components=PROJECTION),
    "projections": EditSettings(components=PROJECTIONS),
    "tokens-projections": EditSettings(components=PROJECTIONS, preserve=10.0, embeddings=True),
    "encoders-mlps": EditSettings(
        components=(*MLPS, *(name.replace("text_encoder", "text_encoder_2") for name in MLPS))
    ),
}
"""Edits named by the anchor and, unless it is the attention, the component; `null-*` keeps
exactly, `tokens-*` moves token embeddings first, and `sequential-N` edits N batches one after
another, as published, each on the model that the earlier ones left."""
MAIN = {
    "emoji-sd": ("kept-mlps", "tokens-mlps"),
    "emoji-dit": ("projections", "tokens-projections"),
}
"""The edits of each embedded model that are measured if none are named: the default, and that with
`--embeddings`."""


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
    """Return the edit of `batches` parts of the concepts, each on the model edited so far.

    There are at least as many concepts as parts. What is kept is what that model says, so that
    earlier parts stay edited.
    """
    weights: dict[str, torch.Tensor] = {}
    solved: list[EditSolution] = []
    for part in range(batches):
        start, stop = (len(concepts) * n // batches for n in (part, part + 1))
        with replaced(model, weights):
            solved.append(solve_edit(model, concepts[start:stop], book=book, settings=settings))
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


def weights_of_edit(model: Diffusion, concepts: Sequence[Concept], *, name: str) -> Weights:
    """Return the edited weights of an edit by its name in EDITS."""
    return solved_edit(model, concepts, name, EDITS[name]).weights


def outcomes_of(
    drawing: Drawing,
    right: Sequence[Asked],
    names: Names,
    concepts: Sequence[Concept],
    edits: Mapping[str, Solve],
) -> Iterator[tuple[str, list[Outcome], float]]:
    """Yield the name, outcomes and seconds of each edit of a list of concepts; one that would keep
    too much exactly has none."""
    for name, solve in edits.items():
        start = time.perf_counter()
        with suppress(ConceptError):
            weights = solve(drawing.model, concepts)
            seconds = time.perf_counter() - start
            yield name, drawing.outcomes(right, names, weights), seconds


def measure(
    drawing: Drawing,
    count: int,
    seeds: Sequence[int],
    edits: Mapping[str, Solve],
    images: int,
    *,
    one_in: int = 1,
) -> list[Row]:
    """Return a row for each edit of `count` objects, pooled over the lists that `seeds` choose.

    Of the prompts of kept names every `one_in`th is drawn.
    """
    model = drawing.model
    book = read_phrasebook(source_folder(model.name))
    outcomes: dict[str, list[Outcome]] = {}
    seconds: dict[str, float] = {}
    for seed in seeds:
        concepts = choose_concepts(book, count, seed=seed)
        asked, names = asked_of(model, concepts, of_list=str(seed), images=images)
        drawn = [a for n, a in enumerate(asked) if a.is_erased or n % one_in == 0]
        right = drawing.right(drawn, names)
        for name, found, took in outcomes_of(drawing, right, names, concepts, edits):
            outcomes.setdefault(name, []).extend(found)
            seconds[name] = max(took, seconds.get(name, 0.0))
    return [
        row_of(found, model=model.name, objects=count, edit=name) | {"seconds": seconds[name]}
        for name, found in outcomes.items()
    ]


def table(
    drawing: Drawing,
    counts: Sequence[int],
    seeds: Sequence[int],
    edits: Mapping[str, Solve],
    images: int,
) -> list[Row]:
    """Print the table and return its rows."""
    print(heading(ABOUT))
    rows: list[Row] = []
    for count in counts:
        rows += measure(drawing, count, seeds, edits, images)
        print("\n".join(line(row, ABOUT) for row in rows if row["objects"] == count), flush=True)
    return rows


def main() -> None:
    """Command line."""
    parser = options_of(str(__doc__))
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 25, 50])
    parser.add_argument("--edits", nargs="+", choices=list(EDITS), help="those of MAIN by default")
    options = parser.parse_args()
    named = options.edits or MAIN[options.model]
    drawing = opened(options)
    edits = {name: partial(weights_of_edit, name=name) for name in named}
    with torch.inference_mode():
        rows = table(drawing, options.counts, options.seeds, edits, options.images)
    write(rows, drawing, options.json)


if __name__ == "__main__":
    main()
