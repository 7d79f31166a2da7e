"""Doubts about an edit, stated before it is solved: its names, its keys, unknown words.

Shapes: N names, D a projection's inputs (suffixes `_ND`, `_NN`).
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch

from engine.editing.denoiser_readers import open_readers
from engine.editing.editable import editable
from engine.editing.names import KnownNames
from engine.editing.prompts import kept_names, plain_phrase
from engine.editing.readers import read_prompts
from engine.evaluation.recognition import choice_texts, share_shown
from engine.evaluation.wordings import choices, read_words
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.sampling import generate
from engine.model.scorer import Scorer, open_scorer
from engine.model.vocabulary import Phrasebook
from jobs.editing.images import CONCEPTS
from jobs.editing.plan import EditPlan
from schemas.caption import Caption
from schemas.concept import Concept, ConceptKind, plain_text
from schemas.edit_settings import RoleWeights

NEAR = 1 / 3
"""Keys are nearly the same if they are nearer than this share of the median distance of names.

Chosen on 11 pairs of emoji-sd (layer 0's MLP): nearer pairs (2) left 0.18 more of the wanted change
undone when edited together than alone, the others 0.08. On 20 other pairs: 0.16 (5) and 0.08.
"""
LAST_TOKEN = RoleWeights(words=0.0, eos=0.0, pads=0.0)
COMPARED = 64
"""Kept names whose keys give the median distance."""


def warnings(model: Diffusion, plan: EditPlan, *, book: Phrasebook) -> Iterator[str]:
    """Yield one sentence for each doubt about a plan; images are drawn only if the plan has any."""
    yield from inside_others(plan.concepts, book=book, kept=plan.settings.kept_concepts)
    yield from near_keys(model, plan.concepts, plan.settings.components[0], book=book)
    if plan.images:
        yield from unknown(model, plan, book=book)


def inside_others(
    concepts: Sequence[Concept], *, book: Phrasebook, kept: Sequence[Concept] = ()
) -> Iterator[str]:
    """Yield the concepts whose name is part of another concept's, a replacement's or a kept
    name."""
    edited = KnownNames([concept.concept for concept in concepts])
    for concept in concepts:
        for inner in edited.within(concept.concept):
            yield (
                f"{inner!r} is inside {concept.concept!r}, and both are edited: look at the images "
                "of both"
            )
        for inner in edited.within(concept.replacement_text):
            yield (
                f"the replacement {concept.replacement_text!r} of {concept.concept!r} says "
                f"{inner!r}, which is edited too: choose another"
            )
    names = (*book.objects, *book.styles, *book.compounds, *(name.concept for name in kept))
    for name in dict.fromkeys(names):
        if name not in edited:
            for inner in edited.within(name):
                yield f"{inner!r} is inside {name!r}, which is kept: look at its images"


def near_keys(
    model: Diffusion, concepts: Sequence[Concept], component: str, *, book: Phrasebook
) -> Iterator[str]:
    """Yield the pairs of one kind that the first edited component hardly tells apart.

    Only those that become different things: one weight cannot give one key two outputs.
    """
    for kind in dict.fromkeys(concept.kind for concept in concepts):
        own = [concept for concept in concepts if concept.kind is kind]
        kept = kept_names(concepts, kind=kind, book=book)[:COMPARED]
        names = [*(concept.concept for concept in own), *kept]
        if len(own) < 2 or len(names) < 3:
            continue
        key_ND = _keys(model, names, kind, component, book)
        apart_NN = torch.cdist(key_ND, key_ND)
        upper = torch.triu_indices(len(names), len(names), offset=1)
        limit = NEAR * float(apart_NN[upper[0], upper[1]].median())
        for (i, one), (j, other) in combinations(enumerate(own), 2):
            same = plain_text(one.replacement_text) == plain_text(other.replacement_text)
            if not same and float(apart_NN[i, j]) < limit:
                yield (
                    f"{one.concept!r} and {other.concept!r} have nearly the same keys in "
                    f"{component}, but become {one.replacement_text!r} and "
                    f"{other.replacement_text!r}: each may take on some of the other's replacement"
                )


@torch.inference_mode()
def _keys(
    model: Diffusion, names: Sequence[str], kind: ConceptKind, component: str, book: Phrasebook
) -> torch.Tensor:
    """Return the component's key_ND at the last token of each name, in its plainest phrase."""
    target = editable(model, component)
    captions = [
        Caption(
            caption=plain_phrase(name, kind=kind, book=book), subject=name, attribute=kind.value
        )
        for name in names
    ]
    reader = open_readers(model, target)[0]
    prompts = read_prompts(model, target.component, captions, encoder=reader.encoder)
    return reader.read(prompts, reader.rows(prompts, LAST_TOKEN)).key_PD


def unknown(model: Diffusion, plan: EditPlan, *, book: Phrasebook) -> Iterator[str]:
    """Yield the concepts and replacements that no image of the unedited model shows.

    `plan.images` are drawn of each of the first CONCEPTS; names without another of their kind are
    not judged.
    """
    folder = source_folder(plan.model)
    words, scorer = read_words(folder, plan.concepts), open_scorer(plan.scorer)
    names = choices(plan.concepts, words)
    for concept in plan.concepts[:CONCEPTS]:
        options = names[concept.kind]
        if len(options) < 2:
            continue
        asked = [("concept", concept)]
        if concept.replacement:
            as_concept = concept.model_copy(update={"concept": concept.replacement})
            asked.append(("replacement", as_concept))
        for what, said in asked:
            texts = choice_texts(said, options, book=book)
            if not _is_shown(model, scorer, texts, plan):
                yield (
                    f"the {what} {said.concept!r} is in none of the {plan.images} images of "
                    f"{texts[0]!r} before the edit: the model may not know it"
                )


def _is_shown(model: Diffusion, scorer: Scorer, texts: Sequence[str], plan: EditPlan) -> bool:
    seeds = list(range(plan.images))
    prompts = [f"a photo of {texts[0]}"] * plan.images
    images_RCHW = generate(model, prompts, seeds=seeds, numerics=plan.numerics)
    return share_shown(images_RCHW, texts, scorer).shown > 0
