"""Keys of an edit: what a full forward pass reads, in every family, and what faces what.

Shapes: N prompts, T tokens, P rows, D width.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from engine.editing.closed_form import KeyStatistics, edited_weight
from engine.editing.covariance import SHIPPED, computed_sums, file_name, read_sums
from engine.editing.delta import replaced
from engine.editing.denoiser_readers import open_readers
from engine.editing.editable import editable, editables, edited_with
from engine.editing.keys import kept_keys, pair_keys
from engine.editing.pairs import prompt_pairs
from engine.editing.positions import facing_places, pad_places, role_rows, role_weights
from engine.editing.prompts import general_captions, known_names, split_by_mention
from engine.editing.readers import encoder_reader, read_prompts
from engine.editing.solve import solve_edit
from engine.model.components import sites_of
from engine.model.hooks import HookPoint, Side, recording
from engine.model.model import Diffusion
from engine.model.opening import open_model, open_skeleton
from engine.model.registry import EMBEDDED, EMOJI_SD, REFERENCE
from engine.model.sampling import encode
from engine.model.tokens import Span
from engine.model.vocabulary import Phrasebook, read_phrasebook, with_article
from engine.reference.statistics import COMPONENTS as SHIPPED_COMPONENTS
from schemas.caption import Caption
from schemas.concept import Concept, ConceptKind
from schemas.edit_settings import KEPT_ROLES, EditSettings, RoleWeights
from schemas.errors import ConceptError, UnknownComponent
from tests.rounding import assert_near

BOOK = Phrasebook(
    openings=("", "see"),
    modifiers=("", "red"),
    endings=("", "by noto"),
    carriers=("a cat", "a dog"),
    objects=("cat", "dog", "fire engine", "hippopotamus"),
    styles=("noto", "neon"),
)
COMPONENTS = [
    ("sd", "text_encoder.layers.0.self_attn"),
    ("sd", "text_encoder.layers.0.mlp"),
    ("sd", "text_encoder.layers.1.self_attn"),
    ("sd", "text_encoder.layers.1.mlp"),
    ("sd2", "text_encoder.layers.0.self_attn"),
    ("sd2", "text_encoder.layers.0.mlp"),
    ("sdxl", "text_encoder.layers.0.self_attn"),
    ("sdxl", "text_encoder_2.layers.0.self_attn"),
    ("sdxl", "text_encoder_2.layers.1.mlp"),
    ("if", "text_encoder.layers.0.self_attn"),
    ("if", "text_encoder.layers.1.mlp"),
]
CROSS = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2"
CAPTIONS = [
    Caption(caption=text, subject=subject, attribute="object")
    for text, subject in (
        ("a cat", "cat"),
        ("a fire engine by the sea", "fire engine"),
        ("hippopotamus", "hippopotamus"),
    )
]


@pytest.fixture(scope="module")
def models(tiny_sd: Path, tiny_families: dict[str, Path]) -> dict[str, Diffusion]:
    folders: Mapping[str, Path] = {"sd": tiny_sd, **tiny_families}
    return {
        name: open_model(str(folders[name]), device="cpu") for name in ("sd", "sd2", "sdxl", "if")
    }


@pytest.mark.parametrize(("family", "component"), COMPONENTS)
def test_rows_are_what_a_full_forward_reads_and_leaves(
    models: dict[str, Diffusion], family: str, component: str
) -> None:
    model = models[family]
    target = editable(model, component)
    (projection,) = target.projections.values()
    prompts = read_prompts(model, target.component, CAPTIONS)
    rows = role_rows(prompts.spans, prompts.length, KEPT_ROLES)
    read = encoder_reader(model, target).read(prompts, rows)
    name = component.rpartition(".")[0]
    layer = sites_of(model, [name])[name].module
    spots = [HookPoint(projection, Side.INPUT), HookPoint(layer, Side.INPUT), HookPoint(layer)]
    with recording(spots) as passed:
        encode(model, [caption.caption for caption in CAPTIONS])
    key_NTD, before_NTD, after_NTD = (passed[spot][0] for spot in spots)
    at = (rows.prompt_P, rows.place_P)
    assert read.key_PD.dtype == torch.float64
    assert_near(read.key_PD.float(), key_NTD[at])
    said_PD = projection(key_NTD[at])
    wanted = after_NTD[at] if component.endswith("mlp") else before_NTD[at] + said_PD
    assert read.stream_PE is not None
    assert_near(read.stream_PE.float(), wanted)


@pytest.mark.parametrize("family", ["sd", "sd2", "sdxl"])
def test_cross_attention_reads_the_text_rows(models: dict[str, Diffusion], family: str) -> None:
    model = models[family]
    cross = CROSS.replace("blocks.0", "blocks.1", 1) if family == "sdxl" else CROSS
    target = editable(model, cross)
    assert [name.rpartition(f"{cross[5:]}.")[2] for name in target.projections] == [
        "to_k.weight",
        "to_v.weight",
    ]
    prompts = read_prompts(model, target.component, CAPTIONS)
    rows = role_rows(prompts.spans, prompts.length, RoleWeights())
    (reader,) = open_readers(model, target)
    read = reader.read(prompts, rows)
    text_NTD = encode(model, [caption.caption for caption in CAPTIONS]).text_RLD
    assert_near(read.key_PD.float(), text_NTD[rows.prompt_P, rows.place_P])


def test_cross_attentions_are_read_once_and_solved_as_each_alone(
    models: dict[str, Diffusion],
) -> None:
    model, concepts = models["sd"], [Concept(concept="cat", replacement="dog")]
    names, encoder = editables(model, ["unet"]), cast("Any", model.text_encoder)
    spot = HookPoint(encoder.encoder.layers[0])

    def solved(components: tuple[str, ...]) -> tuple[dict[str, torch.Tensor], int]:
        settings = EditSettings(components=components)
        with recording([spot]) as passed:
            found = solve_edit(model, concepts, book=BOOK, settings=settings)
        return dict(found.changes), sum(map(len, passed[spot]))

    changes, encoded = solved(names)
    assert len(names) > 1
    for name in names:
        alone, encoded_alone = solved((name,))
        assert encoded == encoded_alone
        assert len(alone) == 2
        for matrix, change_ED in alone.items():
            torch.testing.assert_close(changes.pop(matrix), change_ED, rtol=1e-6, atol=1e-9)
    assert not changes


@pytest.mark.parametrize("roles", [KEPT_ROLES, RoleWeights(eos=0, pads=0)])
def test_prompts_are_read_in_blocks(
    models: dict[str, Diffusion], roles: RoleWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models["sd"]
    target = editable(model, "text_encoder.layers.1.mlp")
    prompts, reader = read_prompts(model, target.component, CAPTIONS), encoder_reader(model, target)
    rows = role_rows(prompts.spans, prompts.length, roles)
    together = reader.read(prompts, rows)
    monkeypatch.setattr("engine.editing.readers.TOGETHER", 2)
    apart = reader.read(prompts, rows)
    assert len(apart.key_PD) == len(rows)
    assert_near(apart.key_PD.float(), together.key_PD.float())
    assert apart.stream_PE is not None
    assert together.stream_PE is not None
    assert_near(apart.stream_PE.float(), together.stream_PE.float())


@pytest.mark.parametrize(
    "component", ["unet.mid_block.resnets.0", "text_encoder.layers.0", "text_encoder.layers.0.x"]
)
def test_what_cannot_be_edited_is_refused_on_the_configs_alone(
    tiny_sd: Path, component: str
) -> None:
    with pytest.raises(UnknownComponent):
        editable(open_skeleton(str(tiny_sd)), component)


def test_a_layer_that_nothing_reads_is_not_edited(models: dict[str, Diffusion]) -> None:
    model = models["sdxl"]
    dead = "text_encoder.layers.1.mlp"
    with pytest.raises(UnknownComponent, match="no image depends on it"):
        editable(model, dead)
    with pytest.raises(UnknownComponent, match="no image depends on it"):
        editables(model, ["text_encoder.layers.1"])
    assert dead not in editables(model, ["text_encoder", "text_encoder_2"])
    of_first = ("text_encoder.layers.0.mlp", "text_encoder_2.layers.0.mlp")
    found = edited_with(model, "text_encoder.layers.0.mlp")
    assert found[:2] == of_first, "of both text encoders"
    assert dead not in found


def test_a_network_or_layer_stands_for_what_can_be_edited_in_it(tiny_sd: Path) -> None:
    skeleton = open_skeleton(str(tiny_sd))
    first = ("text_encoder.layers.0.self_attn", "text_encoder.layers.0.mlp")
    assert editables(skeleton, ["text_encoder.layers.0"]) == first
    assert editables(skeleton, [first[1], "text_encoder.layers.0"]) == (first[1], first[0])
    encoder = editables(skeleton, ["text_encoder"])
    assert encoder[:2] == first
    first_encoder: Any = skeleton.encoders[0].module
    layers = first_encoder.config.num_hidden_layers
    assert len(encoder) == 2 * layers
    crossed = editables(skeleton, ["unet"])
    assert crossed
    assert all(name.endswith("attn2") for name in crossed)
    for name in ("text_encoder.layers.0.self", "vae", "unet.mid_block.resnets.0"):
        with pytest.raises(UnknownComponent):
            editables(skeleton, [name])


def test_prompt_that_is_cut_is_a_concept_error(models: dict[str, Diffusion]) -> None:
    component = editable(models["sd"], "text_encoder.layers.0.mlp").component
    long = "qxz" * 80
    with pytest.raises(ConceptError, match="cannot be edited"):
        read_prompts(
            models["sd"], component, [Caption(caption=long, subject=long, attribute="object")]
        )


SPANS = (Span(start=2, stop=4, eos=6), Span(start=5, stop=6, eos=11))


def test_each_role_weighs_the_same_whatever_its_length() -> None:
    weights = RoleWeights(before=6, subject=1, words=2, eos=3, pads=4)
    weight_NT = role_weights(SPANS, 12, weights)
    assert weight_NT[0].tolist() == pytest.approx([2, 2, 2, 1, 1, 1, 3, 1, 0.0, 1, 1, 1], abs=1.01)
    assert weight_NT.sum(1).tolist() == pytest.approx([16, 12])  # the second prompt has no pads
    assert weight_NT[0, :3].sum() == pytest.approx(6)
    assert weight_NT[0, 7:].sum() == pytest.approx(4)


@pytest.mark.parametrize(
    ("eos", "length", "places"),
    [(6, 77, [7, 30, 53, 76]), (6, 9, [7, 8]), (8, 9, []), (4, 9, [5, 6, 7, 8])],
)
def test_pads_stand_for_all_of_them(eos: int, length: int, places: list[int]) -> None:
    assert pad_places(range(eos + 1, length)) == places


def test_padding_in_front_has_the_weight_of_pads_and_faces_padding() -> None:
    """Source: pads 0-3, text 4-11, subject 6. Target: pads 0-1, text 2-11, subject 5-6."""
    source = Span(start=6, stop=7, eos=11, words=5, first=4)
    target = Span(start=5, stop=7, eos=11, words=4, first=2)
    (weight_T,) = role_weights([source], 12, RoleWeights(before=6, pads=4)).tolist()
    assert weight_T == pytest.approx([1, 1, 1, 1, 3, 3, 1, 0.25, 0.25, 0.25, 0.25, 1])
    rows = role_rows([source], 12, RoleWeights(before=1))
    facing = dict(
        zip(rows.place_P.tolist(), facing_places(rows, [source], [target]).tolist(), strict=True)
    )
    assert [facing[p] for p in range(12)] == [0, 1, 1, 1, 4, 5, 6, 7, 8, 9, 10, 11]
    full = facing_places(rows, [source], [Span(start=1, stop=2, eos=11)]).tolist()
    assert full == [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 11]


def test_positions_face_from_the_subject_and_by_place_after_the_end() -> None:
    """Source: subject 2-3, words 4-5, EOS 6, pads. Target: subject 5, words 6-7, EOS 8, pads."""
    source, target = Span(start=2, stop=4, eos=6), Span(start=5, stop=6, eos=8)
    rows = role_rows([source], 12, RoleWeights(before=1))
    facing = dict(
        zip(rows.place_P.tolist(), facing_places(rows, [source], [target]).tolist(), strict=True)
    )
    assert {p: facing[p] for p in (3, 4, 5, 6)} == {3: 5, 4: 6, 5: 7, 6: 8}
    assert facing[7] == 9  # no pad of the target stands so early
    assert facing[11] == 11
    back = role_rows([target], 12, RoleWeights())
    places = facing_places(back, [target], [source]).tolist()
    assert dict(zip(back.place_P.tolist(), places, strict=True))[8] == 6


@pytest.mark.parametrize(
    ("family", "components"),
    [
        ("sd", ("text_encoder.layers.0.self_attn",)),
        ("sd", ("text_encoder.layers.0.mlp",)),
        ("sdxl", ("text_encoder_2.layers.0.self_attn",)),
        ("if", ("text_encoder.layers.0.mlp",)),
        ("sd", (CROSS,)),
    ],
)
def test_edited_model_says_the_concept_as_it_said_the_target(
    models: dict[str, Diffusion], family: str, components: tuple[str, ...]
) -> None:
    """With one prompt and the ridge going to zero the component's output is the target's."""
    model = models[family]
    concept = Concept(concept="cat", replacement="dog", prompts=("a photo of a {}",))
    settings = EditSettings(
        components=components, ridge=1e-12, preserve=0.0, roles=RoleWeights(pads=0)
    )
    solved = solve_edit(model, [concept], book=BOOK, settings=settings)
    target = editable(model, components[0])
    pairs = prompt_pairs([concept], book=BOOK)
    wanted = pair_keys(model, target, pairs, roles=settings.roles, edited={})
    left = pair_keys(model, target, pairs, roles=settings.roles, edited=solved.weights)
    assert solved.weights.keys() == target.projections.keys()
    for name, change_PE in wanted.changes.items():
        if family == "sd" and components == (CROSS,):
            layer = target.projections[name]
            said = left.key_PD @ solved.weights[name].double().T
            asked = left.key_PD @ layer.weight.double().T + change_PE
            torch.testing.assert_close(said, asked, rtol=1e-3, atol=1e-4)
        else:
            assert float(left.changes[name].norm() / change_PE.norm()) < 1e-3


def test_second_component_finishes_what_the_first_left(models: dict[str, Diffusion]) -> None:
    model = models["sd"]
    concepts = [Concept(concept="cat", replacement="dog")]
    names = ("text_encoder.layers.0.self_attn", "text_encoder.layers.0.mlp")
    last = editable(model, names[1])
    pairs = prompt_pairs(concepts, book=BOOK)

    def left(components: tuple[str, ...]) -> float:
        settings = EditSettings(components=components, ridge=0.3, preserve=0.0)
        solved = solve_edit(model, concepts, book=BOOK, settings=settings)
        keys = pair_keys(model, last, pairs, roles=RoleWeights(), edited=solved.weights)
        (change_PE,) = keys.changes.values()
        return float((keys.weight_P[:, None] * change_PE.square()).sum())

    assert left(names) < left(names[:1])
    assert left(names) == left(names[::-1])  # solved in the network's order, however asked


def test_edit_leaves_the_model_as_it_was(models: dict[str, Diffusion]) -> None:
    model = models["sd"]
    before = {n: p.clone() for n, p in model.text_encoder.named_parameters()}
    settings = EditSettings(components=("text_encoder.layers.0.mlp",))
    solved = solve_edit(model, [Concept(concept="cat")], book=BOOK, settings=settings)
    assert all(torch.equal(p, before[n]) for n, p in model.text_encoder.named_parameters())
    (name,) = solved.weights
    rebuilt_ED = edited_weight(solved.originals[name], solved.changes[name])
    assert torch.equal(solved.weights[name], rebuilt_ED)


def test_what_is_kept_exactly_stays_bit_near(models: dict[str, Diffusion]) -> None:
    model = models["sd"]
    exact = Concept(concept="hippopotamus", prompts=("a {}",))
    settings = EditSettings(
        components=("text_encoder.layers.0.mlp",), ridge=1e-6, preserve=0.0, exactly=(exact,)
    )
    solved = solve_edit(
        model, [Concept(concept="cat", replacement="dog")], book=BOOK, settings=settings
    )
    before = encode(model, ["a hippopotamus"]).text_RLD
    cat_before = encode(model, ["a cat"]).text_RLD
    with replaced(model, solved.weights):
        after, cat_after = encode(model, ["a hippopotamus", "a cat"]).text_RLD.split(1)
    moved, cat_moved = (after - before).norm(), (cat_after - cat_before).norm()
    assert float(moved / before.norm()) < 1e-3
    assert float(cat_moved) > 30 * float(moved)


def test_kept_captions_never_say_a_concept(models: dict[str, Diffusion]) -> None:
    concepts = [
        Concept(concept="cat", replacement="dog"),
        Concept(concept="noto", replacement="neon", kind=ConceptKind.STYLE),
    ]
    captions, said = split_by_mention(
        general_captions(book=BOOK), concepts, known=known_names(concepts, book=BOOK)
    )
    assert captions
    kept_texts, said_texts = ([c.caption.lower() for c in cs] for cs in (captions, said))
    assert all("cat" in text or "noto" in text for text in said_texts)
    assert not [text for text in kept_texts if "cat" in text or "noto" in text]
    target = editable(models["sd"], "text_encoder.layers.0.mlp")
    kept = kept_keys(models["sd"], target, captions, roles=KEPT_ROLES, edited={})
    (change_PE,) = kept.changes.values()
    assert len(kept.key_PD) == len(kept.weight_P)
    assert float(change_PE.abs().max()) == 0.0


@pytest.mark.parametrize("kind", list(ConceptKind))
def test_concept_and_target_prompts_align(kind: ConceptKind) -> None:
    pairs = prompt_pairs(
        [Concept(concept="fox", replacement="owl", kind=kind, weight=3.0)], book=BOOK
    )
    assert sum(pair.weight for pair in pairs) == pytest.approx(3.0)
    for pair in pairs:
        said = pair.source.caption.replace("foxes", "owls").replace("fox", "owl")
        said = said.replace("Fox", "Owl").replace("a owl", "an owl").replace("a Owl", "an Owl")
        assert pair.replacement.caption == said.replace("aan", "an")


@pytest.mark.parametrize(
    ("words", "said"),
    [("owl", "an owl"), ("unicorn", "a unicorn"), ("umbrella", "an umbrella"), ("cat", "a cat")],
)
def test_article_follows_the_sound(words: str, said: str) -> None:
    assert with_article(words) == said


@pytest.fixture(scope="module")
def emoji_sums() -> dict[str, KeyStatistics]:
    """Return the sums of emoji-sd over general captions, by component."""
    return sums_of("emoji-sd")


def sums_of(name: str) -> dict[str, KeyStatistics]:
    """Return the sums of an embedded model over general captions, by component."""
    model, book = open_model(name, device="cpu"), read_phrasebook(REFERENCE / name)
    return {c: computed_sums(model, c, book) for c in SHIPPED_COMPONENTS[name]}


@pytest.mark.slow
@pytest.mark.parametrize("name", EMBEDDED)
def test_shipped_sums_are_those_of_the_model_and_its_words(name: str) -> None:
    book, read, folder = read_phrasebook(REFERENCE / name), sums_of(name), SHIPPED[name]
    assert {file.name for file in folder.iterdir()} == {file_name(c, book) for c in read}
    for component, found in read.items():
        shipped = read_sums(folder / file_name(component, book))
        assert (shipped.keys, shipped.weight) == (found.keys, pytest.approx(found.weight))
        torch.testing.assert_close(shipped.gram_DD, found.gram_DD, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_kept_sums_from_general_ones_are_those_that_are_read(
    emoji_sums: dict[str, KeyStatistics],
) -> None:
    model, book = open_model("emoji-sd", device="cpu"), read_phrasebook(EMOJI_SD)
    component = "text_encoder.layers.0.mlp"
    general = {component: emoji_sums[component]}
    concepts = [
        Concept(concept="cat", replacement="dog"),
        Concept(concept="fire engine", replacement="bus"),
    ]
    known, read = (
        solve_edit(model, concepts, book=book, settings=EditSettings(), general=sums)
        for sums in (general, {})
    )
    assert known.kept_keys == read.kept_keys
    (change,), (other,) = known.changes.values(), read.changes.values()
    assert float((change - other).norm() / other.norm()) < 1e-8


def test_the_mlps_of_a_located_layer_and_the_next_are_edited(models: dict[str, Diffusion]) -> None:
    model = models["sd"]
    last = len(editables(model, ["text_encoder"])) // 2 - 1
    for kind in ("self_attn", "mlp"):
        assert edited_with(model, f"text_encoder.layers.{last - 1}.{kind}") == (
            f"text_encoder.layers.{last - 1}.mlp",
            f"text_encoder.layers.{last}.mlp",
        )
        located = f"text_encoder.layers.{last}.{kind}"
        assert edited_with(model, located) == (f"text_encoder.layers.{last}.mlp",)
    crossed = editables(model, ["unet"])[0]
    assert edited_with(model, crossed) == (crossed,)
