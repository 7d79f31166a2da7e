"""Nearness of names by the text encoder's own embedding of their plain phrases.

Shapes: L token positions, D text width, N names (suffixes `_D`, `_ND`).
"""

from collections.abc import Sequence

import torch

from engine.editing.prompts import plain_phrase
from engine.model.model import Diffusion
from engine.model.sampling import encode
from engine.model.tokens import find_subject
from engine.model.vocabulary import Phrasebook
from schemas.caption import Caption
from schemas.concept import ConceptKind


class Neighborhood:
    """The concepts of each kind, and how near other names are to them."""

    def __init__(self, model: Diffusion, book: Phrasebook) -> None:
        """Embed names with a model's text encoder."""
        self._model, self._book = model, book
        self._known: dict[tuple[str, ConceptKind], torch.Tensor] = {}

    def nearest(
        self, name: str, concepts: Sequence[str], *, kind: ConceptKind
    ) -> tuple[str, float] | None:
        """Return the concept nearest to a name of its kind, with their cosine; or None."""
        if not concepts:
            return None
        others_ND = torch.stack([self._embedding(concept, kind) for concept in concepts])
        cosines = (others_ND @ self._embedding(name, kind)).tolist()
        best = max(range(len(concepts)), key=cosines.__getitem__)
        return concepts[best], cosines[best]

    def _embedding(self, name: str, kind: ConceptKind) -> torch.Tensor:
        """Return the text row of the phrase's end-of-text token, of length 1, float64; of several
        encoders that stand among the text rows, the first one's."""
        if (name, kind) not in self._known:
            phrase = plain_phrase(name, kind=kind, book=self._book)
            caption = Caption(caption=phrase, subject=name, attribute=kind.value)
            with torch.inference_mode():
                cond = encode(self._model, [phrase])
            place = cond.places[0]
            span = find_subject(self._model.encoders[place.encoder].tokenizer, caption)
            row_D = cond.text_RLD[0, place.row(span.eos)].cpu().double()
            self._known[name, kind] = row_D / row_D.norm()
        return self._known[name, kind]
