"""Editing diffusion transformers: what can be edited, and what is read there."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.editing.delta import replaced
from engine.editing.denoiser_readers import IMAGES, STEPS, open_readers
from engine.editing.editable import default_components, editable, editables
from engine.editing.keys import pair_keys
from engine.editing.pairs import prompt_pairs
from engine.editing.readers import encoder_reader, read_prompts
from engine.editing.solve import solve_edit
from engine.model.hooks import HookPoint, Side, count_rows, recording
from engine.model.model import Diffusion
from engine.model.opening import open_model, open_skeleton
from engine.model.sampling import encode, generate
from engine.model.tokens import find_subject
from engine.model.vocabulary import Phrasebook
from schemas.caption import Caption
from schemas.concept import Concept
from schemas.edit_settings import KEPT_ROLES, EditSettings, RoleWeights
from schemas.errors import UnknownComponent
from schemas.numerics import Numerics
from tests.covering import slow
from tests.models.transformers import build_flux, build_pixart, build_sana
from tests.rounding import assert_near

BOOK = Phrasebook(openings=("",), modifiers=("",), endings=("",), objects=("apple", "castle"))
CONCEPT = Concept(concept="apple", replacement="castle", prompts=("a photo of a red {}",))
CAPTIONS = [
    Caption(caption=text, subject=subject, attribute="object")
    for text, subject in (("a red apple", "apple"), ("an old castle at night", "castle"))
]
EDITED = [
    ("pixart", "transformer.caption_projection"),
    ("pixart", "transformer.transformer_blocks.1.attn2"),
    ("sana", "transformer.caption_projection"),
    ("sana", "transformer.transformer_blocks.0.attn2"),
    ("sd3", "transformer.context_embedder"),
    ("sd3", "transformer.time_text_embed.text_embedder"),
    ("flux", "transformer.context_embedder"),
    ("flux", "transformer.time_text_embed.text_embedder"),
]
JOINT = [
    ("sd3", "transformer.transformer_blocks.0.attn"),
    slow("sd3", "transformer.transformer_blocks.2.attn"),
    ("flux", "transformer.transformer_blocks.1.attn"),
    ("flux", "transformer.single_transformer_blocks.0.attn"),
]
ENCODERS = [
    ("pixart", "text_encoder.layers.1.self_attn"),
    ("sana", "text_encoder.layers.0.self_attn"),
    ("sana", "text_encoder.layers.1.mlp"),
    ("sd3", "text_encoder.layers.0.mlp"),
    ("sd3", "text_encoder_2.layers.1.self_attn"),
    ("sd3", "text_encoder_3.layers.1.self_attn"),
    ("flux", "text_encoder.layers.1.mlp"),
    ("flux", "text_encoder_2.layers.1.mlp"),
]


@pytest.fixture(autouse=True)
def small_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make FLUX.1's own latents, whose size its config does not say, those of a small image."""
    monkeypatch.setattr("engine.model.families.joint_attention.Flux.own_cells", 8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_sd3: Path) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("edited")
    built = {
        "pixart": build_pixart(sigma=True),
        "sana": build_sana(sprint=False),
        "flux": build_flux(guidance_embeds=False),
    }
    for name, pipeline in built.items():
        pipeline.save_pretrained(parent / name)
    return {"sd3": tiny_sd3, **{name: parent / name for name in built}}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Diffusion]:
    return {name: open_model(str(folder), device="cpu") for name, folder in folders.items()}


def settings(component: str) -> EditSettings:
    return EditSettings(
        components=(component,), ridge=1e-12, preserve=0.0, roles=RoleWeights(pads=0.0)
    )


@pytest.mark.parametrize(("family", "component"), EDITED)
def test_text_alone_is_read_and_the_concept_says_the_replacement(
    models: dict[str, Diffusion], family: str, component: str
) -> None:
    model, chosen = models[family], settings(component)
    runs: list[int] = []
    with count_rows(model.denoiser, runs.append):
        solved = solve_edit(model, [CONCEPT], book=BOOK, settings=chosen)
        target = editable(model, component)
        keys = pair_keys(
            model, target, prompt_pairs([CONCEPT], book=BOOK), roles=chosen.roles, edited={}
        )
    assert runs == []
    for name, layer in target.projections.items():
        wanted = keys.key_PD @ layer.weight.double().T + keys.changes[name]
        said = keys.key_PD @ solved.weights[name].double().T
        assert float(keys.changes[name].norm()) > 1e-3
        assert float((said - wanted).norm() / keys.changes[name].norm()) < 1e-2


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_the_edited_projection_returns_what_the_replacement_gets_bias_included(
    models: dict[str, Diffusion], family: str
) -> None:
    """At the subject of every encoder, in a run of the model: with the bias counted once."""
    model, name = models[family], "transformer.context_embedder"
    layer = model.denoiser.context_embedder
    with torch.no_grad():
        layer.bias.add_(1.0)  # a bias that would show if it were added twice
    try:
        solved = solve_edit(model, [CONCEPT], book=BOOK, settings=settings(name))
        source, target = (
            CONCEPT.prompts[0].replace("{}", text) for text in ("apple", CONCEPT.replacement_text)
        )
        with recording([HookPoint(layer)]) as passed:
            draw(model, target)
            with replaced(model, solved.weights):
                draw(model, source)
    finally:
        with torch.no_grad():
            layer.bias.sub_(1.0)
    wanted_1LE, said_1LE = passed[HookPoint(layer)]
    for place in encode(model, [source]).places:
        tokenizer = model.encoders[place.encoder].tokenizer
        at = place.row(last_position(tokenizer, source, "apple"))
        facing = place.row(last_position(tokenizer, target, "castle"))
        difference = float((said_1LE[0, at] - wanted_1LE[0, facing]).norm())
        before = float((said_1LE[0, 0] - wanted_1LE[0, facing]).norm())
        assert difference < 1e-3 * before


def draw(model: Diffusion, text: str) -> None:
    generate(model, [text], seeds=[0], numerics=Numerics(steps=1, guidance=1.0))


def last_position(tokenizer: Any, text: str, subject: str) -> int:
    return find_subject(tokenizer, Caption(caption=text, subject=subject, attribute="object")).last


@pytest.mark.parametrize(("family", "component"), JOINT)
def test_joint_attention_is_read_in_runs_and_comes_nearer_to_the_replacement(
    models: dict[str, Diffusion], family: str, component: str
) -> None:
    model, chosen = models[family], settings(component)
    target = editable(model, component)
    pairs = prompt_pairs([CONCEPT], book=BOOK)
    keys = pair_keys(model, target, pairs, roles=chosen.roles, edited={})
    places = encode(model, ["a red apple"]).places
    assert len(open_readers(model, target)) == IMAGES * STEPS * len(places)
    assert len(keys.key_PD) % (IMAGES * STEPS) == 0
    solved = solve_edit(model, [CONCEPT], book=BOOK, settings=chosen)
    for name, layer in target.projections.items():
        asked = keys.key_PD @ layer.weight.double().T + keys.changes[name]
        said = keys.key_PD @ solved.weights[name].double().T
        weighted = keys.weight_P.sqrt()[:, None]
        left = float((weighted * (said - asked)).norm() / (weighted * keys.changes[name]).norm())
        assert left < 0.7


@pytest.mark.parametrize(("family", "component"), ENCODERS)
def test_an_encoder_is_read_as_the_pipeline_runs_it(
    models: dict[str, Diffusion], family: str, component: str
) -> None:
    """T5 without a mask reads padding, Gemma an instruction before the caption."""
    model = models[family]
    target = editable(model, component)
    (projection,) = target.projections.values()
    prompts = read_prompts(model, target.component, CAPTIONS)
    reader = encoder_reader(model, target)
    rows = reader.rows(prompts, KEPT_ROLES)
    read = reader.read(prompts, rows)
    with recording([HookPoint(projection, Side.INPUT)]) as passed:
        encode(model, [caption.caption for caption in CAPTIONS])
    (key_NTD,) = passed[HookPoint(projection, Side.INPUT)]
    last = prompts.spans[0].last
    said = (rows.prompt_P == 0) & (rows.place_P == last)
    assert_near(read.key_PD[said][0].float(), key_NTD[0, last])
    words = rows.place_P <= torch.tensor([span.eos for span in prompts.spans])[rows.prompt_P]
    at = (rows.prompt_P[words], rows.place_P[words])
    assert_near(read.key_PD[words].float(), key_NTD[at])
    assert (read.stream_PE is None) == (family == "sana")


@pytest.mark.parametrize("family", ["pixart", "sana"])
def test_masked_padding_and_the_template_are_no_keys(
    models: dict[str, Diffusion], family: str
) -> None:
    model = models[family]
    target = editable(model, "transformer.caption_projection")
    (reader,) = open_readers(model, target)
    prompts = read_prompts(model, target.component, CAPTIONS)
    rows = reader.rows(prompts, KEPT_ROLES)
    cond = encode(model, [caption.caption for caption in CAPTIONS])
    (place,) = cond.places
    row_P = torch.tensor([place.row(int(position)) for position in rows.place_P])
    assert cond.mask_RL is not None
    assert bool((row_P >= 0).all())
    assert bool((cond.mask_RL[rows.prompt_P, row_P] == 1).all())
    assert_near(reader.read(prompts, rows).key_PD.float(), cond.text_RLD[rows.prompt_P, row_P])


def test_single_stream_blocks_are_edited_only_where_asked_for(folders: dict[str, Path]) -> None:
    skeleton = open_skeleton(str(folders["flux"]))
    single = "transformer.single_transformer_blocks.0.attn"
    with pytest.raises(UnknownComponent, match=f"{single} projects image tokens.*--shared"):
        editables(skeleton, [single])
    assert editables(skeleton, [single], with_shared=True) == (single,)
    inside = editables(skeleton, ["transformer"])
    assert not [name for name in inside if "single" in name]
    assert {"transformer.context_embedder", "transformer.transformer_blocks.1.attn"} <= {*inside}
    assert single in editables(skeleton, ["transformer"], with_shared=True)


def test_the_default_is_all_that_takes_a_transformers_text_in(
    folders: dict[str, Path], tiny_sd: Path
) -> None:
    both = ("transformer.context_embedder", "transformer.time_text_embed.text_embedder")
    assert {
        name: default_components(open_skeleton(str(folder))) for name, folder in folders.items()
    } == {
        "sd3": both,
        "flux": both,
        "pixart": ("transformer.caption_projection",),
        "sana": ("transformer.caption_projection",),
    }
    assert default_components(open_skeleton(str(tiny_sd))) == ()
