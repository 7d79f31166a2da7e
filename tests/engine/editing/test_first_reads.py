"""Sums over general captions stand for the keys that no earlier part of the edit changes."""

from pathlib import Path

import pytest

from engine.editing.covariance import computed_sums
from engine.editing.solve import first_reads, solve_edit
from engine.model.opening import open_model
from engine.model.vocabulary import Phrasebook
from schemas.concept import Concept
from schemas.edit_settings import EditSettings

BOOK = Phrasebook(
    openings=("", "see"),
    modifiers=("", "red"),
    endings=("", "by noto"),
    carriers=("a cat", "a dog"),
    objects=("cat", "dog", "fire engine", "hippopotamus"),
    styles=("noto", "neon"),
)
PROJECTIONS = ("transformer.time_text_embed.text_embedder", "transformer.context_embedder")
MLPS = tuple(f"text_encoder{n}.layers.{layer}.mlp" for n in ("", "_2") for layer in (0, 1))


@pytest.mark.parametrize(
    ("components", "unaffected"),
    [
        (PROJECTIONS, PROJECTIONS),
        (MLPS, (MLPS[0], MLPS[2])),
        ((MLPS[2], *PROJECTIONS), (MLPS[2],)),
    ],
)
@pytest.mark.parametrize("embeddings", [False, True])
def test_known_sums_give_the_edit_that_reading_gives(
    tiny_sd3: Path, components: tuple[str, ...], unaffected: tuple[str, ...], *, embeddings: bool
) -> None:
    model = open_model(str(tiny_sd3), device="cpu")
    assert first_reads(model, components) == [(name,) for name in unaffected]
    concepts = [Concept(concept="cat", replacement="dog"), Concept(concept="hippopotamus")]
    settings = EditSettings(components=components, embeddings=embeddings)
    general = {name: computed_sums(model, name, BOOK) for name in components}
    known, read = (
        solve_edit(model, concepts, book=BOOK, settings=settings, general=sums)
        for sums in (general, {})
    )
    assert known.kept_keys == read.kept_keys
    assert known.changes.keys() == read.changes.keys()
    for name, change in read.changes.items():
        assert float((known.changes[name] - change).norm() / change.norm()) < 1e-6, name
