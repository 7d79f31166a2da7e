"""Opening models and scorers: what is wrong is said in one sentence."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms.functional import to_pil_image

from engine.model.defaults import default_noise, default_sampling
from engine.model.opening import open_model, open_skeleton, open_tokenizer
from engine.model.registry import EMBEDDED, EMOJI_SD, model_hash
from engine.model.scorer import check_scorer, open_scorer, quick_gelu
from schemas.errors import ModelUnavailable


@pytest.mark.parametrize("opening", [open_model, open_skeleton, open_tokenizer])
def test_an_unknown_name_is_refused_with_what_can_be_given(opening) -> None:  # noqa: ANN001
    with pytest.raises(ModelUnavailable, match=r"unknown model 'nope': give one of emoji-sd"):
        opening("nope")


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"no model_index\.json"):
        open_model(str(tmp_path))


def test_another_kind_of_pipeline_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableAudioPipeline"}')
    with pytest.raises(ModelUnavailable, match=r"is a StableAudioPipeline: dqf opens .*QwenImage"):
        open_model(str(tmp_path))


def test_a_broken_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(ModelUnavailable, match="text_encoder"):
        open_skeleton(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ModelUnavailable, match="not JSON"):
        open_skeleton(str(tmp_path))


def test_an_unknown_scorer_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="ARCHITECTURE:PRETRAINED"):
        open_scorer("ViT-B-16:nobody")


def test_the_embedded_models_defaults_are_its_vocabularys() -> None:
    vocabulary = json.loads((EMOJI_SD / "vocabulary.json").read_text())
    assert default_sampling("emoji-sd") == (vocabulary["steps"], vocabulary["guidance"])


@pytest.mark.parametrize(
    ("name", "steps", "guidance"),
    [("sd-1.4", 50, 7.5), ("sdxl-turbo", 1, 1.0), ("lcm", 4, 8.0), ("owner/any", 50, 7.5)],
)
def test_a_model_has_the_defaults_of_its_kind(name: str, steps: int, guidance: float) -> None:
    assert default_sampling(name) == (steps, guidance)


def test_the_embedded_models_need_more_noise_than_others() -> None:
    assert {default_noise(name) for name in EMBEDDED} == {8.0}
    assert default_noise("sd-1.4") == default_noise("owner/any") == 3.0


def test_the_hash_follows_the_content(tiny_sd: Path) -> None:
    before = model_hash(str(tiny_sd))
    assert model_hash(str(tiny_sd)) == before
    note = tiny_sd / "unet" / "note.json"
    note.write_text("{}")
    try:
        assert model_hash(str(tiny_sd)) != before
    finally:
        note.unlink()


def test_scores_are_those_of_the_models_own_preprocessing(tiny_scorer: Path) -> None:
    import open_clip

    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images = (images * 255).round() / 255
    name = f"local-dir:{tiny_scorer}"
    model: Any
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    pictures: list[Image.Image] = [to_pil_image(image) for image in images]
    with torch.inference_mode():
        batch = torch.stack([preprocess(picture) for picture in pictures])  # pyright: ignore
        image_RD = model.eval().encode_image(batch, normalize=True)
        text_TD = model.encode_text(open_clip.get_tokenizer(name)(["a cat"]), normalize=True)
    got = open_scorer(str(tiny_scorer)).score(images, ["a cat"])
    assert torch.allclose(got, (image_RD @ text_TD.T).double(), atol=5e-3)


@pytest.fixture
def scorer_folder(tiny_scorer: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_scorer, tmp_path / "scorer"))


def test_a_scorer_that_is_incomplete_or_not_finite_is_refused(scorer_folder: Path) -> None:
    weights = scorer_folder / "open_clip_model.safetensors"
    whole = load_file(weights)
    check_scorer(str(scorer_folder))
    save_file({**whole, "visual.proj": torch.full_like(whole["visual.proj"], torch.nan)}, weights)
    with pytest.raises(ModelUnavailable, match=r"values in visual\.proj that are not finite"):
        open_scorer(str(scorer_folder))
    save_file({**whole, "ln_final.bias": torch.zeros(3)}, weights)
    with pytest.raises(ModelUnavailable, match=r"ln_final\.bias of another shape"):
        check_scorer(str(scorer_folder))
    del whole["visual.proj"]
    save_file(whole, weights)
    with pytest.raises(ModelUnavailable, match=r"is incomplete: visual\.proj is missing"):
        check_scorer(str(scorer_folder))
    weights.rename(scorer_folder / "open_clip_model.bin")
    with pytest.raises(ModelUnavailable, match=r"has no \.safetensors files"):
        open_scorer(str(scorer_folder))


@pytest.mark.parametrize(
    "text", [{"hf_model_name": "owner/any"}, {"tokenizer_kwargs": {"trust_remote_code": True}}]
)
def test_a_scorer_whose_config_could_run_code_is_refused(scorer_folder: Path, text: dict) -> None:
    file = scorer_folder / "open_clip_config.json"
    document = json.loads(file.read_text())
    document["model_cfg"]["text_cfg"] |= text
    file.write_text(json.dumps(document))
    with pytest.raises(ModelUnavailable, match="could run code"):
        open_scorer(str(scorer_folder))


def test_a_scorer_that_prepares_images_otherwise_is_refused(scorer_folder: Path) -> None:
    file = scorer_folder / "open_clip_config.json"
    document = json.loads(file.read_text())
    document["preprocess_cfg"]["resize_mode"] = "longest"
    file.write_text(json.dumps(document))
    with pytest.raises(ModelUnavailable, match="prepares images by ResizeKeepRatio"):
        open_scorer(str(scorer_folder))


@pytest.mark.parametrize(
    ("name", "is_quick"),
    [("ViT-B-16:openai", True), ("ViT-B-16:laion2b_s34b_b88k", False), ("RN50:openai", True)],
)
def test_pretrained_scorers_have_the_activation_that_they_were_trained_with(
    name: str, is_quick: bool
) -> None:
    assert quick_gelu(*name.split(":")) is is_quick
