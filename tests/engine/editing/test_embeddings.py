"""Token embeddings that move: which tokens, to what, and that no other text changes by a bit."""

import pytest
import torch

from engine.editing.delta import replaced, weights_of
from engine.editing.edit_prompts import EditPrompts, edit_prompts
from engine.editing.embeddings import facing_tokens, moved_embeddings, moves_tokens
from engine.editing.solve import solve_edit
from engine.model.model import Diffusion
from engine.model.opening import open_model
from engine.model.sampling import encode
from engine.model.vocabulary import Phrasebook
from schemas.concept import Concept
from schemas.edit_settings import EditSettings

BOOK = Phrasebook(
    modifiers=("", "red"),
    endings=("",),
    carriers=("a cat",),
    objects=("cat", "dog", "owl", "guitar", "chair", "house", "hot dog"),
    styles=(),
    neutral=frozenset(),
)
GUITAR = Concept(concept="guitar", replacement="owl")
ALONE = EditSettings(components=("text_encoder.layers.0.mlp",), embeddings=True)
TABLE = "text_encoder.embeddings.token_embedding.weight"


@pytest.fixture(scope="module")
def model() -> Diffusion:
    return open_model("emoji-sd", device="cpu")


def prompts_of(*concepts: Concept) -> EditPrompts:
    return edit_prompts(concepts, book=BOOK, settings=ALONE)


def token(model: Diffusion, word: str) -> int:
    (_, found, _) = model.tokenizer(word).input_ids
    return found


def test_a_concepts_own_token_says_the_replacement(model: Diffusion) -> None:
    moved = moved_embeddings(model, prompts_of(GUITAR))
    (name,) = moved
    assert moves_tokens(moved)
    table_VD = weights_of(model)[name]
    guitar, owl = token(model, "guitar"), token(model, "owl")
    torch.testing.assert_close(moved[name][guitar], table_VD[owl], rtol=0, atol=1e-6)
    with replaced(model, moved):
        said = encode(model, ["a photo of a guitar"]).text_RLD
        kept = encode(model, ["a photo of a cat", "two chairs"]).text_RLD
    wanted = encode(model, ["a photo of a owl"]).text_RLD
    torch.testing.assert_close(said, wanted, rtol=0, atol=1e-4)
    assert torch.equal(kept, encode(model, ["a photo of a cat", "two chairs"]).text_RLD)


def test_tokens_that_kept_prompts_or_replacements_say_stay(model: Diffusion) -> None:
    concepts = [Concept(concept="hot dog", replacement="owl"), GUITAR]
    said = prompts_of(*concepts)
    faced = facing_tokens(model.tokenizer, said)
    kept = {c.caption for c in (*said.general, *said.further)}
    used = {i for text in kept for i in model.tokenizer(text).input_ids}
    assert faced
    assert not faced.keys() & used
    assert token(model, "dog") not in faced  # "dog" is kept
    assert {other for others in faced.values() for other in others} <= {
        i for pair in said.pairs for i in model.tokenizer(pair.replacement.caption).input_ids
    }


def test_what_is_shared_is_a_mean_by_weight(model: Diffusion) -> None:
    both = [
        Concept(concept="guitar", replacement="owl", weight=3.0, prompts=("a {}",)),
        Concept(concept="red guitar", replacement="dog", weight=1.0, prompts=("a {}",)),
    ]
    (moved_VD,) = moved_embeddings(model, prompts_of(*both)).values()
    table_VD = weights_of(model)[TABLE].double()
    owl, dog = token(model, "owl"), token(model, "dog")
    wanted_D = 0.75 * table_VD[owl] + 0.25 * table_VD[dog]
    torch.testing.assert_close(
        moved_VD[token(model, "guitar")].double(), wanted_D, rtol=0, atol=1e-6
    )


def test_components_are_solved_on_the_model_whose_tokens_moved(model: Diffusion) -> None:
    solved = solve_edit(model, [GUITAR], book=BOOK, settings=ALONE)
    table, projection = solved.weights
    assert moves_tokens([table])
    (only,) = solve_edit(
        model, [GUITAR], book=BOOK, settings=EditSettings(components=ALONE.components)
    ).changes.values()
    # What the token says already is not solved for again.
    assert float(solved.changes[projection].norm()) < float(only.norm())
    rows = solved.changes[table].abs().sum(1) > 0
    assert int(rows.sum()) == len(facing_tokens(model.tokenizer, prompts_of(GUITAR)))


def test_nothing_moves_where_every_token_is_kept(model: Diffusion) -> None:
    said = prompts_of(Concept(concept="dog house", replacement="owl"))
    assert facing_tokens(model.tokenizer, said) == {}
    assert moved_embeddings(model, said) == {}
