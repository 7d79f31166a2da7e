"""Settings of parts: at a telling value the image is diffusers' own, or the setting is refused."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.model.opening import check_model, check_size, count_steps, open_model
from engine.model.sampling import generate
from engine.testing.pipelines import open_pipeline, pipeline_image
from schemas.errors import ModelUnavailable, PlanError
from schemas.numerics import Numerics
from tests.covering import slow
from tests.models.transformers import build_pixart, build_sana

CAPTION = "a painting of a sailing ship"
NUMERICS = Numerics(steps=2, guidance=3.0)
SIZED: dict[str, Numerics] = {
    "sana": NUMERICS.model_copy(update={"height": 32, "width": 32}),
    "sprint": NUMERICS.model_copy(update={"height": 32, "width": 32}),
    "flux": NUMERICS.model_copy(update={"height": 16, "width": 16}),
}
"""Numerics of families whose pipelines have other sizes of their own."""
AS_WRITTEN: dict[str, Any] = {"use_resolution_binning": False, "clean_caption": False}
OPTIONS = {name: AS_WRITTEN for name in ("alpha", "sana", "sprint")}
"""Arguments of pipelines' calls that make them draw what dqf draws."""
CONFIGS = {
    "scheduler": "scheduler_config.json",
    **{f"tokenizer{suffix}": "tokenizer_config.json" for suffix in ("", "_2", "_3")},
}
DYNAMIC = {"base_image_seq_len": 4, "max_image_seq_len": 64, "base_shift": 0.1, "max_shift": 3.0}
MEAN, STD = [0.5, -1.0, 0.3, 0.8], [2.0, 0.5, 1.5, 3.0]


@pytest.fixture(scope="module")
def folders(
    tiny_sd: Path,
    tiny_families: dict[str, Path],
    tiny_sd3: Path,
    tiny_flux: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("transformers")
    build_pixart(sigma=False).save_pretrained(parent / "alpha")
    build_sana(sprint=False).save_pretrained(parent / "sana")
    build_sana(sprint=True).save_pretrained(parent / "sprint")
    made = {name: parent / name for name in ("alpha", "sana", "sprint")}
    return {"sd": tiny_sd, **tiny_families, "sd3": tiny_sd3, "flux": tiny_flux, **made}


@pytest.fixture(scope="module")
def plain(folders: dict[str, Path]) -> dict[str, torch.Tensor]:
    """Return the image of every folder as it is."""
    return {family: drawn(folder, family) for family, folder in folders.items()}


def with_settings(folder: Path, out: Path, part: str, settings: Mapping[str, object]) -> Path:
    """Return a copy of a folder whose part, "" for the pipeline itself, has other settings."""
    copy = Path(shutil.copytree(folder, out / "model"))
    name = CONFIGS.get(part, "config.json") if part else "model_index.json"
    file = copy / part / name
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return copy


def drawn(folder: Path, family: str, caption: str = CAPTION) -> torch.Tensor:
    model = open_model(str(folder), device="cpu")
    return generate(model, [caption], seeds=[3], numerics=SIZED.get(family, NUMERICS))


def expected_image(folder: Path, family: str, caption: str = CAPTION) -> torch.Tensor:
    """Return the pipeline's own image."""
    numerics, options = SIZED.get(family, NUMERICS), OPTIONS.get(family, {})
    return pipeline_image(open_pipeline(folder), caption, seed=3, numerics=numerics, **options)


@pytest.mark.parametrize(
    ("family", "part", "settings"),
    [
        ("sd", "vae", {"scaling_factor": 0.7}),
        ("sd", "scheduler", {"prediction_type": "v_prediction"}),
        slow("sd", "scheduler", {"timestep_spacing": "trailing", "thresholding": True}),
        ("sd", "unet", {"center_input_sample": True}),
        ("sd", "text_encoder", {"hidden_act": "gelu"}),
        ("sdxl", "vae", {"latents_mean": MEAN, "latents_std": STD}),
        ("sdxl", "", {"force_zeros_for_empty_prompt": False}),
        slow("sdxl", "text_encoder_2", {"hidden_act": "quick_gelu"}),
        ("lcm", "scheduler", {"original_inference_steps": 5}),
        ("if", "scheduler", {"variance_type": "fixed_small"}),
        ("alpha", "vae", {"scaling_factor": 0.1}),
        slow("alpha", "transformer", {"interpolation_scale": 3}),
        slow("alpha", "scheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ("sana", "transformer", {"timestep_scale": 0.5}),
        slow("sana", "scheduler", {"flow_shift": 6.0}),
        ("sprint", "transformer", {"guidance_embeds_scale": 2.0}),
        ("sd3", "vae", {"shift_factor": 0.5}),
        ("sd3", "scheduler", {**DYNAMIC, "use_dynamic_shifting": True}),
        slow("sd3", "scheduler", {"shift": 7.0, "use_karras_sigmas": True}),
        ("sd3", "scheduler", {"stochastic_sampling": True}),
        ("flux", "vae", {"shift_factor": 0.5}),
        ("flux", "scheduler", DYNAMIC),
        slow("flux", "scheduler", {"time_shift_type": "linear", "shift_terminal": 0.2}),
        slow("flux", "tokenizer_2", {"pad_token": "</s>"}),
    ],
)
def test_a_setting_is_honored(
    folders: dict[str, Path],
    plain: dict[str, torch.Tensor],
    tmp_path: Path,
    family: str,
    part: str,
    settings: dict[str, Any],
) -> None:
    folder = with_settings(folders[family], tmp_path, part, settings)
    expected = expected_image(folder, family)
    assert torch.allclose(drawn(folder, family), expected, atol=1e-4)
    assert not torch.allclose(plain[family], expected, atol=1e-3), "it tells nothing"


@pytest.mark.parametrize(
    ("family", "part", "settings"),
    [
        ("sd", "vae", {"latents_mean": MEAN, "latents_std": STD, "shift_factor": 0.5}),
        ("sd", "scheduler", {"steps_offset": 0, "clip_sample": True}),
        ("sdxl", "vae", {"shift_factor": 0.5, "force_upcast": False, "latents_mean": MEAN}),
        slow("sdxl", "text_encoder", {"use_attention_mask": True}),
        ("sd", "", {"requires_safety_checker": True}),
        ("alpha", "vae", {"shift_factor": 5.0, "latents_mean": MEAN, "latents_std": STD}),
        ("sprint", "transformer", {"timestep_scale": 0.5}),
        slow("sd3", "vae", {"latents_mean": MEAN, "latents_std": STD, "force_upcast": False}),
        ("sd3", "tokenizer_3", {"model_max_length": 16}),
    ],
)
def test_what_the_pipeline_does_not_read_changes_nothing(
    folders: dict[str, Path],
    plain: dict[str, torch.Tensor],
    tmp_path: Path,
    family: str,
    part: str,
    settings: dict[str, Any],
) -> None:
    folder = with_settings(folders[family], tmp_path, part, settings)
    expected = expected_image(folder, family)
    assert torch.allclose(drawn(folder, family), expected, atol=1e-4)
    assert torch.allclose(plain[family], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "part", "settings", "match"),
    [
        ("sd", "text_encoder", {"use_attention_mask": True}, "use_attention_mask = True"),
        ("sd", "unet", {"in_channels": 9}, "in_channels = 9 .* no inpainting"),
        ("sd", "unet", {"out_channels": 8}, "out_channels = 8"),
        ("sd", "unet", {"class_embed_type": "timestep"}, "class_embed_type = 'timestep'"),
        ("sd", "unet", {"num_class_embeds": 4}, "num_class_embeds = 4"),
        ("sd", "unet", {"cross_attention_dim": 48}, "reads text of width 48 .* give 32"),
        ("sd", "vae", {"out_channels": 4}, "vae has the setting out_channels = 4"),
        ("sd", "text_encoder", {"max_position_embeddings": 20}, "model_max_length = 24"),
        ("sd", "text_encoder", {"vocab_size": 20}, "tokens and the text encoder embeds 20"),
        ("sd", "tokenizer", {"model_max_length": None}, "model_max_length"),
        ("sd", "tokenizer", {"model_max_length": 1}, "model_max_length = 1, not a number of"),
        ("sd", "tokenizer", {"model_max_length": "77"}, "model_max_length = '77', not a number"),
        ("lcm", "unet", {"time_cond_proj_dim": None}, "time_cond_proj_dim = None"),
        (
            "sdxl",
            "vae",
            {"latents_mean": MEAN, "latents_std": STD[1:]},
            "latents_std of 3 channels",
        ),
        ("sdxl", "vae", {"latents_mean": 1, "latents_std": STD}, "latents_mean = 1, not numbers"),
        ("sd", "text_encoder", {"num_hidden_layers": 0}, "its networks do not work together"),
        ("sdxl", "unet", {"addition_embed_type": None}, "addition_embed_type = None"),
        ("sdxl", "text_encoder_2", {"projection_dim": 48}, "projection_class_embeddings_input_dim"),
        ("if", "unet", {"out_channels": 3}, "out_channels = 3"),
        ("if", "text_encoder", {"pad_token_id": 1}, "pad_token_id = 1"),
        ("alpha", "tokenizer", {"pad_token": "</s>"}, "'</s>', token 1, .* pad_token_id = 0"),
        ("sana", "text_encoder", {"pad_token_id": None}, "pad_token_id = None"),
        ("flux", "tokenizer", {"padding_side": "left"}, "padding_side = 'left'"),
        ("alpha", "transformer", {"out_channels": 12}, "out_channels = 12 .* need 4 or 8"),
        ("sd3", "transformer", {"out_channels": 1}, "out_channels = 1 .* need 4"),
        ("flux", "transformer", {"patch_size": 2}, "patch_size = 2"),
        ("sana", "transformer", {"guidance_embeds": True}, "guidance_embeds = True"),
        ("sana", "vae", {"in_channels": 4}, "vae has the setting in_channels = 4"),
        ("sd3", "tokenizer_2", {"model_max_length": 16}, "tokenizer_2 .* = 16 and its tokenizer"),
        ("sd", "vae", {"scaling_factor": "0.5"}, "scaling_factor = '0.5', not a number other"),
        ("sd3", "vae", {"scaling_factor": 0}, "scaling_factor = 0, not a number other than 0"),
        ("flux", "vae", {"shift_factor": [0.1]}, r"shift_factor = \[0.1\], not a number"),
        ("sd", "unet", {"sample_size": None}, "sample_size = None, not a side of a latent"),
        ("sd", "unet", {"sample_size": [8, 0]}, r"sample_size = \[8, 0\], not a side"),
        ("sd3", "transformer", {"sample_size": 64}, "sample_size = 64 and draws at most 24"),
        ("sd3", "transformer", {"_max_sequence_length": -1}, "_max_sequence_length = -1, not a"),
        ("sd3", "transformer", {"_max_sequence_length": 10**9}, "text rows, at most 4096"),
        ("sd3", "text_encoder", {"eos_token_id": None}, "eos_token_id = None, not the id"),
        ("sd", "tokenizer", {"model_max_length": 10.5}, "model_max_length = 10.5, not a number"),
        ("sd", "scheduler", {"num_train_timesteps": 10**9}, "dqf reads at most 1,000,000"),
        ("sd", "vae", {"layers_per_block": 10**6}, "layers_per_block = 1000000: dqf reads at most"),
        ("sd3", "transformer", {"num_layers": 10**7}, "num_layers = 10000000: dqf reads at most"),
    ],
)
def test_a_setting_that_is_not_honored_is_refused_by_name(
    folders: dict[str, Path],
    tmp_path: Path,
    family: str,
    part: str,
    settings: dict[str, Any],
    match: str,
) -> None:
    folder = with_settings(folders[family], tmp_path, part, settings)
    with pytest.raises(ModelUnavailable, match=match):
        check_model(str(folder))


def test_a_scheduler_that_reads_another_variance_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = with_settings(
        folders["alpha"], tmp_path, "scheduler", {"variance_type": "learned_range"}
    )
    with pytest.raises(PlanError, match=r"scheduler_config\.json allows no step"):
        check_model(str(folder))


@pytest.mark.parametrize("caption", ["a <pad> castle", "a castle <pad>"])
@pytest.mark.parametrize("family", ["alpha", "if"])
def test_padding_within_a_text_is_no_padding(
    folders: dict[str, Path], family: str, caption: str
) -> None:
    expected = expected_image(folders[family], family, caption)
    assert torch.allclose(drawn(folders[family], family, caption), expected, atol=1e-4)


def test_padding_within_a_text_is_refused_where_nothing_follows_it(
    folders: dict[str, Path],
) -> None:
    with pytest.raises(PlanError, match="'a castle <pad>' has '<pad>'"):
        drawn(folders["sana"], "sana", "a castle <pad>")


@pytest.mark.parametrize(
    ("family", "kind", "way"),
    [
        ("sd3", "EulerDiscreteScheduler", "init_noise_sigma"),
        ("sana", "EulerDiscreteScheduler", "init_noise_sigma"),
        ("lcm", "HeunDiscreteScheduler", "scale_model_input"),
    ],
)
def test_a_scheduler_that_scales_where_the_pipeline_does_not_is_refused(
    folders: dict[str, Path], tmp_path: Path, family: str, kind: str, way: str
) -> None:
    folder = with_settings(folders[family], tmp_path, "", {"scheduler": ["diffusers", kind]})
    with pytest.raises(PlanError, match=f"scheduler {kind} scales latents .{way}"):
        check_model(str(folder))


def test_a_schedule_that_ends_before_the_last_step_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = with_settings(folders["sd3"], tmp_path, "scheduler", {"shift_terminal": 1.0})
    with pytest.raises(PlanError, match="allows no step: index"):
        check_model(str(folder))


def test_positions_that_are_no_table_bound_no_size(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = with_settings(folders["sd3"], tmp_path, "transformer", {"pos_embed_max_size": None})
    check_size(str(folder), height=512, width=512)


def test_a_single_step_of_pixart_alpha_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(PlanError, match=r"steps 1: .*PixArtAlphaPipeline"):
        count_steps(str(folders["alpha"]), scheduler=None, steps=1)


@pytest.mark.parametrize(
    ("family", "pixels", "match"),
    [
        ("sd3", 56, "height 56: .* at most 48 pixels"),
        ("sd3", 18, "height 18: .* multiples of 4 pixels"),
        ("flux", 6, "height 6: .* multiples of 4 pixels"),
        ("sana", 9, "height 9: .* multiples of 2 pixels"),
    ],
)
def test_a_size_that_a_model_cannot_draw_is_refused(
    folders: dict[str, Path], family: str, pixels: int, match: str
) -> None:
    with pytest.raises(PlanError, match=match):
        check_size(str(folders[family]), height=pixels, width=None)
    check_size(str(folders[family]), height=48, width=None)
