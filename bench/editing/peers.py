"""Published closed forms and ours on the same images: python -m bench.editing.peers --tune 109.

Written from the papers' equations. UCE (Gandikota et al. 2024, equation 7): for keys c of concepts,
c* of their replacements and k of kept names, W = (sum W0 c* c^T + p sum W0 k k^T + lambda W0)
(sum c c^T + p sum k k^T + lambda I)^-1, on `to_k` and `to_v` of every cross-attention of a UNet, on
the text projection of a transformer. A name's keys are its text's rows at the last word, or from
there to the end. The notebook of DiffQuickFix: `engine.editing.published`. For each number of
objects the strengths of peers are those of the highest H on one further list, that of `--tune`,
with fewer prompts; ours is the default.
"""

import argparse
import itertools
from collections.abc import Sequence
from functools import partial

import torch

from bench.editing.batch import ABOUT, MAIN, measure, weights_of_edit
from bench.editing.drawn import Drawing, Row, Solve, heading, line, opened, options_of, write
from engine.editing.closed_form import edited_weight
from engine.editing.denoiser_readers import open_readers
from engine.editing.editable import Editable, default_components, editable_together
from engine.editing.positions import Rows
from engine.editing.prompts import kept_names
from engine.editing.published import published_edit
from engine.editing.readers import read_prompts
from engine.evaluation.pairs import Weights
from engine.model.components import list_components
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.vocabulary import read_phrasebook
from schemas.caption import Caption
from schemas.component import Kind
from schemas.concept import Concept, ConceptKind

LAMBDAS, PRESERVES = (0.5, 10.0), (0.0, 1.0, 10.0)
"""lambda and p of UCE, of which 0.5 and 1 are its code's defaults."""
NOTEBOOK_LAMBDAS = (0.01, 10.0, 1000.0)
"""lambda of the notebook, of which 0.01 is its own."""
ONE_IN = 4
"""Tuning draws one in four prompts for kept names."""


def uce_components(model: Diffusion) -> list[str]:
    """Return the components that UCE edits: a text projection, or all cross-attentions."""
    if projections := default_components(model):
        return [projections[0]]
    return [c.name for c in list_components(model, [Kind.CROSS_ATTENTION])]


@torch.inference_mode()
def uce(
    model: Diffusion,
    concepts: Sequence[Concept],
    *,
    ridge: float,
    preserve: float,
    to_end: bool,
) -> Weights:
    """Return the weights that UCE solves for; what it keeps are the other objects."""
    target = editable_together(model, uce_components(model))
    book = read_phrasebook(source_folder(model.name))
    others = kept_names(concepts, kind=ConceptKind.OBJECT, book=book)
    both = [(c.concept, c.replacement_text) for c in concepts] + [(name, name) for name in others]
    key_PD, new_PD, of_concept_P = _keys(model, target, both, len(concepts), to_end=to_end)
    weight_P1 = torch.where(of_concept_P, 1.0, preserve).double()[:, None]
    gram_DD = key_PD.T @ (weight_P1 * key_PD)
    new_DD = new_PD.T @ (weight_P1 * key_PD)
    eye_DD = torch.eye(len(gram_DD), dtype=torch.float64)
    # W - W0 = W0 (new - gram) (gram + lambda I)^-1: the equation with W0 taken off.
    right_DD = torch.linalg.solve(gram_DD + ridge * eye_DD, (new_DD - gram_DD).T).T
    return {
        name: edited_weight(layer.weight, layer.weight.cpu().double() @ right_DD)
        for name, layer in target.projections.items()
    }


def _keys(
    model: Diffusion,
    target: Editable,
    names: Sequence[tuple[str, str]],
    concepts: int,
    *,
    to_end: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the keys of names and of what they become, `_PD` each, and which are of the first
    `concepts` names, `_P`."""
    captions = [
        Caption(caption=text, subject=text, attribute="object") for both in names for text in both
    ]
    sides: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    of_concept: list[torch.Tensor] = []
    for reader in open_readers(model, target):
        prompts = read_prompts(model, target.component, captions, encoder=reader.encoder)
        places, end = [span.last for span in prompts.spans], prompts.length
        # Both of a pair have as many keys: where one reaches the end, its last row stands again.
        counts = [end - places[2 * n] if to_end else 1 for n in range(len(names))]
        for side, keys in enumerate(sides):
            rows = [
                (2 * n + side, min(places[2 * n + side] + ahead, end - 1))
                for n, count in enumerate(counts)
                for ahead in range(count)
            ]
            prompt_P, place_P = torch.tensor(rows).T
            weight_P = torch.ones(len(rows), dtype=torch.float64)
            read = reader.read(prompts, Rows(prompt_P=prompt_P, place_P=place_P, weight_P=weight_P))
            keys.append(read.key_PD)
        of_concept.append(torch.lt(prompt_P, 2 * concepts))
    return torch.cat(sides[0]), torch.cat(sides[1]), torch.cat(of_concept)


def notebook(model: Diffusion, concepts: Sequence[Concept], *, ridge: float) -> Weights:
    """Return the weights of the published notebook, in the attention of the first layer."""
    component = "text_encoder.layers.0.self_attn"
    return published_edit(model, concepts, component=component, ridge=ridge).weights


def grid(model: str) -> dict[str, dict[str, Solve]]:
    """Return each peer's settings by name; the notebook edits a model of one text encoder."""
    uces = {
        f"lambda {ridge:g}, p {preserve:g}, {'to the end' if to_end else 'last word'}": partial(
            uce, ridge=ridge, preserve=preserve, to_end=to_end
        )
        for ridge, preserve, to_end in itertools.product(LAMBDAS, PRESERVES, (False, True))
    }
    notebooks = {f"lambda {r:g}": partial(notebook, ridge=r) for r in NOTEBOOK_LAMBDAS}
    if model == "emoji-sd":
        return {"UCE on K/V": uces, "notebook": notebooks}
    return {"UCE on the text projection": uces}


def tuned(drawing: Drawing, count: int, options: argparse.Namespace) -> dict[str, Solve]:
    """Return each peer with the strengths of its highest H on the list for tuning, by its name."""
    best: dict[str, Solve] = {}
    for peer, settings in grid(options.model).items():
        rows = measure(drawing, count, [options.tune], settings, images=1, one_in=ONE_IN)
        for row in rows:
            print(f"tuning {peer} at {count}:", line(row, ABOUT), flush=True)
        highest = max(rows, key=lambda row: float(str(row["H"] or 0)))
        best[f"{peer}, {highest['edit']}"] = settings[str(highest["edit"])]
    return best


def main() -> None:
    """Command line."""
    parser = options_of(str(__doc__))
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 25])
    parser.add_argument("--tune", type=int, required=True, help="seed of the list for tuning")
    options = parser.parse_args()
    if options.tune in options.seeds:
        parser.error("--tune is a list that is not measured: give another seed")
    drawing = opened(options)
    rows: list[Row] = []
    with torch.inference_mode():
        for count in options.counts:
            ours = {name: partial(weights_of_edit, name=name) for name in MAIN[options.model][:1]}
            edits = {**ours, **tuned(drawing, count, options)}
            rows += measure(drawing, count, options.seeds, edits, options.images)
    print(heading(ABOUT))
    print("\n".join(line(row, ABOUT) for row in rows))
    write(rows, drawing, options.json)


if __name__ == "__main__":
    main()
