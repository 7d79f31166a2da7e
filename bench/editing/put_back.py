"""The original text encoder put back after an edit: python -m bench.editing.put_back.

Objects are edited in the MLPs of the text encoder and then in `to_k` and `to_v` of every
cross-attention of the UNet, which reads the encoder's rows: solved for what the MLPs leave (`K/V`),
or with the original encoder's rows of the concepts and of what is kept as further keys (`K/V of
both rows`). Each is measured as edited and with the original text encoder put back, which undoes
the MLPs' part.
"""

from collections.abc import Sequence
from functools import partial

import torch

from bench.editing.batch import MLPS, table
from bench.editing.drawn import Solve, opened, options_of, write
from engine.editing.closed_form import Anchor, edited_weight, solve_changes
from engine.editing.edit_prompts import edit_prompts
from engine.editing.editable import editable_together
from engine.editing.solve import batches, solve_edit, sum_batches, total
from engine.evaluation.pairs import Weights
from engine.model.components import list_components
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.vocabulary import read_phrasebook
from schemas.component import Kind
from schemas.concept import Concept
from schemas.edit_settings import EditSettings

SETTINGS = EditSettings(components=MLPS)
NAMES = (
    "MLPs",
    "MLPs + K/V",
    "MLPs + K/V, encoder put back",
    "MLPs + K/V of both rows",
    "MLPs + K/V of both rows, encoder put back",
)
"""The MLPs' edit with the encoder put back is the unedited model, which shows all by definition."""


def edits_of(model: Diffusion, concepts: Sequence[Concept]) -> dict[str, Weights]:
    """Return the weights of every edit by its name in NAMES."""
    book = read_phrasebook(source_folder(model.name))
    mlps = solve_edit(model, concepts, book=book, settings=SETTINGS).weights
    left = keys_and_values(model, concepts, [mlps])
    both = keys_and_values(model, concepts, [mlps, {}])
    weights = (mlps, {**mlps, **left}, left, {**mlps, **both}, both)
    return dict(zip(NAMES, weights, strict=True))


def keys_and_values(
    model: Diffusion, concepts: Sequence[Concept], encoders: Sequence[Weights]
) -> Weights:
    """Return the weights of all cross-attentions, solved for the rows of every text encoder in
    `encoders`, by its edited weights: each says of a concept what the unedited one says of the
    replacement, and of what is kept what the unedited one says."""
    names = tuple(c.name for c in list_components(model, [Kind.CROSS_ATTENTION]))
    book = read_phrasebook(source_folder(model.name))
    said = edit_prompts(concepts, book=book, settings=SETTINGS)
    pairs = batches(names, SETTINGS.roles, pairs=said.pairs)
    kept = batches(names, SETTINGS.preserve_roles, captions=said.general)
    edits, anchor = (
        total(sums for encoder in encoders for sums in sum_batches(model, parts, encoder))
        for parts in (pairs, kept)
    )
    assert edits is not None
    assert anchor is not None
    changes = solve_changes(
        edits, anchors=(Anchor(sums=anchor, strength=SETTINGS.preserve),), ridge=SETTINGS.ridge
    )
    layers = editable_together(model, names).projections
    return {name: edited_weight(layers[name].weight, change) for name, change in changes.items()}


class Edits:
    """The edits of the list of concepts that was asked for last, which are solved together."""

    def __init__(self) -> None:
        self._concepts: tuple[Concept, ...] = ()
        self._weights: dict[str, Weights] = {}

    def weights(self, model: Diffusion, concepts: Sequence[Concept], *, name: str) -> Weights:
        """Return the weights of an edit by its name in NAMES."""
        if self._concepts != tuple(concepts):
            self._concepts, self._weights = tuple(concepts), edits_of(model, concepts)
        return self._weights[name]


def main() -> None:
    """Command line."""
    parser = options_of(str(__doc__))
    parser.add_argument("--counts", type=int, nargs="+", default=[10])
    options = parser.parse_args()
    if options.model != "emoji-sd":
        parser.error("only a UNet has cross-attentions of the text: --model emoji-sd")
    drawing, edits = opened(options), Edits()
    solves: dict[str, Solve] = {name: partial(edits.weights, name=name) for name in NAMES}
    with torch.inference_mode():
        rows = table(drawing, options.counts, options.seeds, solves, options.images)
    write(rows, drawing, options.json)


if __name__ == "__main__":
    main()
