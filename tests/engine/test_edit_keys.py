"""Collecting keys: the same as a full forward pass reads, without running it to the end.

Shapes: N prompts, T tokens, D width.
"""

import pytest
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from engine.captions import tokenize
from engine.edit import pair_statistics, replaced_weight, solve_change
from engine.keys import (
    RoleWeights,
    gather_kept,
    gather_pairs,
    projection_inputs,
    role_weights,
    subject_ends,
)
from engine.prompts import Phrasebook, PromptPair, kept_captions, prompt_pairs, with_article
from engine.reference.captions import build_tokenizer
from schemas.concept import Concept, ConceptKind
from schemas.errors import ConceptError
from schemas.plan import Caption

BOOK = Phrasebook(
    openings=("", "a photo of"),
    modifiers=("", "red"),
    endings=("", "in the style of noto"),
    carriers=("a cat", "a dog"),
    objects=("cat", "dog", "fire engine"),
    styles=("noto", "neon"),
)


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer(whole_words=0.2, length=24)


@pytest.fixture
def encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=24,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = CLIPTextModel(config).eval().requires_grad_(False)
    for layer in model.encoder.layers:
        nn.init.normal_(layer.self_attn.out_proj.bias)  # the bias trap needs a bias
    return model


def projections(encoder: CLIPTextModel) -> list[nn.Linear]:
    layers = encoder.encoder.layers
    return [layers[0].self_attn.out_proj, layers[0].mlp.fc2, layers[2].self_attn.out_proj]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_keys_are_what_a_full_forward_reads(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer, index: int
) -> None:
    projection = projections(encoder)[index]
    ids_NT = tokenize(tokenizer, ["a cat", "a photo of a fire engine", "a red dog"])
    read: list[torch.Tensor] = []
    handle = projection.register_forward_hook(lambda _m, args, _out: read.append(args[0]))
    encoder(ids_NT)
    handle.remove()
    key_NTD = projection_inputs(encoder, projection, ids_NT, batch=2)
    assert key_NTD.dtype == torch.float64
    torch.testing.assert_close(key_NTD.float(), read[0], rtol=1e-5, atol=1e-6)


def test_nothing_after_the_projection_runs(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> None:
    ran: list[str] = []
    for name, module in encoder.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    first = projections(encoder)[0]
    projection_inputs(encoder, first, tokenize(tokenizer, ["a cat"]))
    assert "encoder.layers.0.self_attn.v_proj" in ran
    assert not [n for n in ran if "out_proj" in n or "mlp" in n or "layers.1" in n]


def test_subject_ends_at_its_last_token_wherever_it_stands(tokenizer: CLIPTokenizer) -> None:
    caption = Caption(
        caption="a photo of a fire engine in the style of noto",
        subject="fire engine",
        attribute="object",
    )
    ids = tokenizer("a photo of a fire engine")["input_ids"]
    assert subject_ends(tokenizer, [caption])[1].tolist() == [len(ids) - 2]


def test_prompt_that_is_cut_is_a_concept_error(tokenizer: CLIPTokenizer) -> None:
    long = "qxz" * 20
    with pytest.raises(ConceptError, match="cannot be edited"):
        subject_ends(tokenizer, [Caption(caption=long, subject=long, attribute="object")])


def test_each_role_weighs_the_same_whatever_its_length() -> None:
    ids_NT = torch.tensor([[0, 5, 6, 7, 8, 9, 9, 9, 9], [0, 5, 6, 7, 8, 4, 4, 4, 9]])
    weights = RoleWeights(subject=1, words=2, eos=3, pads=4)
    weight_NT = role_weights(ids_NT, last_N=torch.tensor([2, 7]), eos_id=9, weights=weights)
    assert weight_NT[0].tolist() == pytest.approx([0, 0, 1, 1, 1, 3, 4 / 3, 4 / 3, 4 / 3])
    assert weight_NT[1].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 3]


def test_positions_align_from_the_last_subject_token(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> None:
    """Subjects of different lengths, both ways: the end of one faces the end of the other."""
    projection, texts = projections(encoder)[0], ("a cat in the style of noto", "a fire engine")
    source, target = (
        Caption(caption=text, subject=subject, attribute="object")
        for text, subject in zip(texts, ("cat", "fire engine"), strict=True)
    )
    cat_TD, engine_TD = projection_inputs(encoder, projection, tokenize(tokenizer, texts))
    cat, engine = subject_ends(tokenizer, [source, target])[1].tolist()
    assert engine > cat
    ahead, length = engine - cat, len(cat_TD)
    for pair, first, second, start in (
        (PromptPair(source=source, target=target), cat_TD, engine_TD, cat),
        (PromptPair(source=target, target=source), engine_TD, cat_TD, engine),
    ):
        found = gather_pairs(encoder, projection, tokenizer, [pair], roles=RoleWeights())
        places = [
            min(n + (ahead if start == cat else -ahead), length - 1) for n in range(start, length)
        ]
        assert torch.equal(found.source_PD, first[start:])
        assert torch.equal(found.target_PD, second[places])


@pytest.mark.parametrize("index", [0, 1])
def test_edited_layer_says_cat_as_it_said_dog(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer, index: int
) -> None:
    """W k + b must be W0 k' + b: with few keys, and the ridge going to zero."""
    projection = projections(encoder)[index]
    concept = Concept(concept="cat", target="dog")
    book = Phrasebook(openings=("a photo of",), modifiers=("",), endings=("",))
    pairs = gather_pairs(
        encoder,
        projection,
        tokenizer,
        prompt_pairs(concept, book=book)[1:],
        roles=RoleWeights(words=0, eos=1, pads=0),
    )
    change_ED = solve_change(pair_statistics(projection.weight, pairs), ridge=1e-12)
    weight_ED = (projection.weight.double() + change_ED).float()
    wanted = projection(pairs.target_PD.float())
    with replaced_weight(projection, weight_ED):
        edited = projection(pairs.source_PD.float())
    torch.testing.assert_close(edited, wanted, rtol=1e-3, atol=1e-3)


def test_replaced_weight_comes_back_after_an_error(encoder: CLIPTextModel) -> None:
    projection = projections(encoder)[0]
    before = projection.weight.clone()
    with pytest.raises(RuntimeError), replaced_weight(projection, torch.zeros(16, 16)):
        raise RuntimeError
    assert torch.equal(projection.weight, before)


def test_kept_captions_never_say_a_concept(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> None:
    concepts = [
        Concept(concept="cat", target="dog"),
        Concept(concept="noto", target="neon", kind=ConceptKind.STYLE),
    ]
    captions = kept_captions(concepts, book=BOOK)
    assert captions
    assert not [c for c in captions if "cat" in c.caption or "noto" in c.caption]
    kept = gather_kept(encoder, projections(encoder)[0], tokenizer, captions, roles=RoleWeights())
    assert len(kept.key_PD) == len(kept.weight_P)


@pytest.mark.parametrize("kind", list(ConceptKind))
def test_concept_and_target_prompts_align(kind: ConceptKind) -> None:
    pairs = prompt_pairs(Concept(concept="fox", target="owl", kind=kind), book=BOOK)
    assert pairs
    for pair in pairs:
        said = pair.source.caption.replace("fox", "owl").replace("a owl", "an owl")
        assert pair.target.caption == said.replace("aan", "an")


@pytest.mark.parametrize(
    ("words", "said"),
    [("owl", "an owl"), ("unicorn", "a unicorn"), ("umbrella", "an umbrella"), ("cat", "a cat")],
)
def test_article_follows_the_sound(words: str, said: str) -> None:
    assert with_article(words) == said
