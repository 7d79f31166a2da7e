"""The families whose text encoder is a language model keep what `FamilyTests` asks of any."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE

from engine.editing.denoiser_readers import Sample
from engine.editing.editable import editable
from engine.editing.keys import pair_keys
from engine.editing.pairs import prompt_pairs
from engine.editing.solve import solve_edit
from engine.model.components import sites_of
from engine.model.defaults import default_sampling
from engine.model.families.flux2 import Flux2, Flux2Klein
from engine.model.families.qwen_image import DROPPED, TEMPLATE, QwenImage
from engine.model.families.z_image import ZImage
from engine.model.guidance import check_guidance
from engine.model.hooks import HookPoint, Side, recording
from engine.model.model import Diffusion, Family
from engine.model.opening import check_model, open_model, open_skeleton
from engine.model.sampling import denoiser_output, encode, generate, initial_latent
from engine.model.tokens import find_subject, find_subjects, tokenize
from engine.model.weight_files import PartError
from engine.testing.families import WORDS, FamilyTests
from engine.testing.pipelines import open_pipeline, pipeline_image
from schemas.caption import Caption
from schemas.concept import Concept
from schemas.edit_settings import EditSettings, RoleWeights
from schemas.errors import ModelUnavailable, PlanError
from schemas.intervention import TokenRole
from schemas.numerics import Numerics
from tests.engine.model.test_settings import with_settings
from tests.models.language_models import (
    MISTRAL_TEMPLATE,
    QWEN_TEMPLATE,
    build_flux2,
    build_klein,
    build_qwen_image,
    build_z_image,
    mistral_processor,
    qwen_tokenizer,
)

CONCEPT = Concept(concept="apple", replacement="boat", prompts=("a photo of {}",))
CAPTION = Caption(caption=" a Red  apple (red) by the sea", subject="apple", attribute="object")
FAMILIES: dict[str, tuple[Family, tuple[str, ...]]] = {
    "z-image": (ZImage(), ()),
    "qwen-image": (QwenImage(), (TEMPLATE,)),
    "klein": (Flux2Klein(), ()),
}
"""Families, and the texts of which every word is a token of their tokenizer."""
SMALL: dict[str, Any] = {"height": 16, "width": 16}


class TestZImage(FamilyTests):
    """Captions of unequal length in one batch; the pipeline's guidance scale is 1 less."""

    family = ZImage()
    numerics = Numerics(steps=2, guidance=4.0, negative_prompt="two small birds", **SMALL)
    pipeline_options: ClassVar[dict[str, Any]] = {"guidance_scale": 3.0}

    def build(self) -> Any:
        return build_z_image()

    def test_what_no_text_has_reached_moves_nothing_at_the_first_step(
        self, model: Diffusion
    ) -> None:
        parts = ("noise_refiner.0.attention", "noise_refiner.0.feed_forward")
        names = [f"transformer.{part}" for part in (*parts, "context_refiner.0.attention")]
        assert self.moved_at_the_first_step(model, names) == [False, False, True]

    @pytest.mark.parametrize("name", ["attention", "feed_forward"])
    def test_an_edit_of_a_refiner_says_the_replacement(self, model: Diffusion, name: str) -> None:
        """What it reads is the same at every time and latent, so that the edit is exact there."""
        component = f"transformer.context_refiner.0.{name}"
        settings = EditSettings(
            components=(component,), ridge=1e-12, preserve=0.0, roles=RoleWeights(pads=0.0)
        )
        solved = solve_edit(model, [CONCEPT], book=WORDS, settings=settings)
        ((matrix, layer),) = editable(model, component).projections.items()
        pairs = prompt_pairs([CONCEPT], book=WORDS)
        keys = pair_keys(model, editable(model, component), pairs, roles=settings.roles, edited={})
        wanted = keys.key_PD @ layer.weight.double().T + keys.changes[matrix]
        missed = keys.key_PD @ solved.weights[matrix].double().T - wanted
        assert float(keys.changes[matrix].norm()) > 1e-3
        assert float(missed.norm()) < 1e-2 * float(keys.changes[matrix].norm())
        cond = encode(model, ["a photo of apple", "two small birds by the sea"])
        read = []
        for seed, t in ((0, 900.0), (1, 20.0)):
            x_1Chw = initial_latent(model, seed, self.numerics)
            sample = Sample(x_1Chw=x_1Chw, t=torch.tensor(t), numerics=self.numerics)
            read.append(sample.reading(layer, model)(cond))
        assert torch.equal(*read)

    @pytest.mark.parametrize(("height", "tokens"), [(16, 32), (32, 32), (48, 64)])
    def test_a_larger_image_has_its_text_elsewhere(
        self, model: Diffusion, height: int, tokens: int
    ) -> None:
        """Two captions differ in the first layer's input from the text's first token on."""
        numerics = self.numerics.model_copy(update={"height": height})
        name = "transformer.layers.0.stream_text"
        x_1Chw = initial_latent(model, 0, numerics)
        span = sites_of(model, [name])[name].span(x_1Chw[0, 0].numel())
        spot = HookPoint(model.denoiser.layers[0], Side.INPUT)
        cond = encode(model, ["a red apple", "two small birds"])
        with torch.inference_mode(), recording([spot]) as passed:
            denoiser_output(model, x_1Chw.repeat(2, 1, 1, 1), torch.tensor(500.0), cond, numerics)
        one_TD, other_TD = passed[spot][0]
        differ_T = (one_TD - other_TD).abs().amax(-1) > 0
        assert int(differ_T.nonzero()[0]) == tokens
        assert span == slice(tokens, None)


class TestQwenImage(FamilyTests):
    """A caption under an instruction that is dropped, and guidance of unchanged norm."""

    family = QwenImage()
    numerics = Numerics(steps=2, guidance=4.0, negative_prompt="two small birds", **SMALL)
    pipeline_options: ClassVar[dict[str, Any]] = {"true_cfg_scale": 4.0}

    def build(self) -> Any:
        return build_qwen_image()


class TestFlux2(FamilyTests):
    """Padding in front of every text, and an embedded guidance scale."""

    family = Flux2()
    numerics = Numerics(steps=2, guidance=4.0, **SMALL)

    def build(self) -> Any:
        return build_flux2()


class TestFlux2Klein(FamilyTests):
    """Guidance by the empty prompt, and no guidance where the index says that it is distilled."""

    family = Flux2Klein()
    numerics = Numerics(steps=2, guidance=3.0, **SMALL)

    def build(self) -> Any:
        return build_klein(is_distilled=False)


def prepared(name: str, tokenizer: Any) -> Any:
    """Return the tokenizer that a family makes of one."""
    return FAMILIES[name][0].prepare_tokenizer(tokenizer, part="text_encoder", denoiser=None)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_subject_is_found_in_its_template(name: str) -> None:
    """At the tokens of the caption as written, between those of the template."""
    tokenizer = prepared(name, qwen_tokenizer(*FAMILIES[name][1]))
    span = find_subject(tokenizer, CAPTION)
    (ids_L,) = tokenize(tokenizer, [CAPTION.caption])
    assert tokenizer.decode(ids_L[list(span.subject)]).split() == ["apple"]
    written = tokenizer.decode(ids_L[span.words : span.eos + 1])
    assert written.startswith(CAPTION.caption + "<|im_end|>\n<|im_start|>assistant\n")
    assert written.endswith("</think>\n\n") == (name == "klein")
    assert set(ids_L[span.eos + 1 :].tolist()) == {tokenizer.pad_token_id}
    assert span.words == (DROPPED if name == "qwen-image" else 3)


SWALLOWING = {
    "leaves it out": (QWEN_TEMPLATE.replace("message.content", "'hello'"), "write a text once"),
    "says it twice": (
        QWEN_TEMPLATE.replace("message.content", "message.content + message.content"),
        "write a text once",
    ),
    "is missing": (None, "write a text once: .*chat_template"),
}


@pytest.mark.parametrize("what", SWALLOWING)
@pytest.mark.parametrize("name", ["z-image", "klein"])
def test_a_template_that_swallows_the_caption_is_refused(name: str, what: str) -> None:
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template, match = SWALLOWING[what]
    with pytest.raises(PartError, match=match):
        prepared(name, tokenizer)


def test_a_template_may_strip_a_caption_and_not_change_it() -> None:
    """A stripped caption's subject is found; one that the template writes otherwise is refused."""
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = QWEN_TEMPLATE.replace("message.content", "message.content | trim")
    stripping = prepared("z-image", tokenizer)
    span = find_subject(stripping, CAPTION)
    (ids_L,) = tokenize(stripping, [CAPTION.caption])
    assert stripping.decode(ids_L[list(span.subject)]).split() == ["apple"]
    tokenizer.chat_template = QWEN_TEMPLATE.replace("message.content", "message.content | lower")
    with pytest.raises(PlanError, match="chat template changes it"):
        find_subject(prepared("z-image", tokenizer), CAPTION)


def test_fewer_tokens_than_are_dropped_before_a_caption_are_refused() -> None:
    tokenizer = qwen_tokenizer(TEMPLATE)
    tokenizer.add_tokens(["Describe the image by detailing"])
    with pytest.raises(PartError, match=r"in 30 tokens, of which the pipeline drops 34"):
        prepared("qwen-image", tokenizer)


def test_padding_in_front_moves_a_text_where_padding_is_read() -> None:
    tokenizer = qwen_tokenizer()
    tokenizer.padding_side = "left"
    assert find_subject(prepared("z-image", tokenizer), CAPTION).words == 3
    tokenizer = prepared("klein", tokenizer)
    span = find_subject(tokenizer, CAPTION)
    (ids_L,) = tokenize(tokenizer, [CAPTION.caption])
    found_NL, _ = find_subjects(tokenizer, [CAPTION])
    assert found_NL[0].tolist() == ids_L.tolist()
    assert (span.eos, span.words) == (511, span.first + 3)
    assert set(ids_L[: span.first].tolist()) == {tokenizer.pad_token_id}
    assert tokenizer.decode(ids_L[list(span.subject)]).split() == ["apple"]
    assert span.positions(TokenRole.PADS, 512) == [tuple(range(span.first))]


def test_dev_reads_a_caption_after_its_instruction_and_one_start_token() -> None:
    tokenizer = Flux2().prepare_tokenizer(mistral_processor(), part="text_encoder", denoiser=None)
    span = find_subject(tokenizer, CAPTION)
    (ids_L,) = tokenize(tokenizer, [CAPTION.caption])
    assert tokenizer.decode(ids_L[list(span.subject)]).split() == ["apple"]
    assert tokenizer.decode(ids_L[span.first : span.words]) == (
        f"<s>[SYSTEM_PROMPT]{SYSTEM_MESSAGE}[/SYSTEM_PROMPT][INST]"
    )
    assert tokenizer.decode(ids_L[span.words :]) == CAPTION.caption + "[/INST]"
    with pytest.raises(PlanError, match="without the template's own signs"):
        tokenize(tokenizer, ["an [IMG] apple"])


def test_a_start_token_is_added_where_devs_template_writes_none() -> None:
    processor = mistral_processor()
    processor.chat_template = MISTRAL_TEMPLATE.replace("{{- bos_token }}", "")
    tokenizer = Flux2().prepare_tokenizer(processor, part="text_encoder", denoiser=None)
    (ids_L,) = tokenize(tokenizer, [CAPTION.caption])
    text = tokenizer.decode(ids_L[find_subject(tokenizer, CAPTION).first :])
    assert text.startswith("<s>[SYSTEM_PROMPT]")


@pytest.mark.parametrize(
    "build",
    [
        lambda: build_klein(is_distilled=False, padding_side="left"),
        lambda: build_flux2(padding_side="right"),
    ],
    ids=["klein", "dev"],
)
def test_an_image_is_the_pipelines_wherever_its_tokenizer_pads(
    tmp_path: Path, build: Callable[[], Any]
) -> None:
    build().save_pretrained(tmp_path)
    text, numerics = CAPTION.caption, Numerics(steps=2, guidance=3.0, **SMALL)
    expected = pipeline_image(open_pipeline(tmp_path), text, seed=3, numerics=numerics)
    got = generate(open_model(str(tmp_path), device="cpu"), [text], seeds=[3], numerics=numerics)
    assert float((got - expected).abs().max()) < 1e-4


SHALLOW = {"num_hidden_layers": 26, "layer_types": ["full_attention"] * 26}
SHALLOW_MISTRAL = {
    "text_config": {
        "model_type": "mistral",
        "hidden_size": 8,
        "num_hidden_layers": 29,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("language models")
    built = {
        "z-image": build_z_image,
        "qwen-image": build_qwen_image,
        "klein": build_klein,
        "dev": build_flux2,
    }
    for name, build in built.items():
        build().save_pretrained(parent / name)
    return {name: parent / name for name in built}


def test_a_distilled_klein_draws_without_guidance(folders: dict[str, Path]) -> None:
    folder = folders["klein"]
    assert default_sampling(str(folder)) == (4, 1.0)
    with pytest.raises(PlanError, match="draws without guidance"):
        check_guidance(open_skeleton(str(folder)), Numerics(guidance=4.0))
    numerics = Numerics(steps=2, guidance=1.0, **SMALL)
    expected = pipeline_image(open_pipeline(folder), "a red apple", seed=3, numerics=numerics)
    model = open_model(str(folder), device="cpu")
    got = generate(model, ["a red apple"], seeds=[3], numerics=numerics)
    assert float((got - expected).abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("name", "part", "settings", "match"),
    [
        ("z-image", "transformer", {"all_patch_size": [4]}, "lacks 2 in all_patch_size"),
        ("z-image", "transformer", {"all_f_patch_size": [2]}, "lacks 1 in all_f_patch_size"),
        ("z-image", "transformer", {"n_refiner_layers": 0}, "n_refiner_layers = 0"),
        ("z-image", "transformer", {"axes_lens": [512, 8, 8]}, "512 positions .* needs 514"),
        ("z-image", "transformer", {"siglip_feat_dim": 8}, "siglip_feat_dim = 8"),
        ("z-image", "transformer", {"cap_feat_dim": 8}, "reads 8 numbers of text_encoder"),
        ("qwen-image", "transformer", {"guidance_embeds": True}, "guidance_embeds = True"),
        ("qwen-image", "transformer", {"zero_cond_t": True}, "zero_cond_t = True"),
        ("qwen-image", "transformer", {"use_layer3d_rope": True}, "use_layer3d_rope = True"),
        ("qwen-image", "transformer", {"use_additional_t_cond": True}, "use_additional_t_cond"),
        ("qwen-image", "transformer", {"out_channels": None}, "out_channels = None .* 16 and 4"),
        ("qwen-image", "vae", {"latents_mean": [0.0]}, "latents_mean of 1 channels"),
        ("qwen-image", "vae", {"latents_std": None}, "latents_std = None, not numbers"),
        ("klein", "transformer", {"guidance_embeds": True}, "guidance_embeds = True"),
        ("klein", "transformer", {"in_channels": 32}, "in_channels = 32 .* need 16"),
        (
            "klein",
            "vae",
            {"batch_norm_eps": "x"},
            "batch_norm_eps = 'x', not a number of at least 0",
        ),
        ("klein", "vae", {"patch_size": [1, 1]}, r"patch_size = \[1, 1\]"),
        ("klein", "text_encoder", SHALLOW, "26 layers, .* the first 27"),
        ("dev", "transformer", {"guidance_embeds": False}, "guidance_embeds = False"),
        ("dev", "text_encoder", SHALLOW_MISTRAL, "29 layers, .* the first 30"),
    ],
)
def test_a_setting_that_is_not_honored_is_refused_by_name(
    folders: dict[str, Path], tmp_path: Path, name: str, part: str, settings: Any, match: str
) -> None:
    folder = with_settings(folders[name], tmp_path, part, settings)
    with pytest.raises(ModelUnavailable, match=match):
        check_model(str(folder))
