"""Settings of parts: at a telling value the image is diffusers' own, or the setting is refused."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.model.opening import check_model, open_model
from engine.model.sampling import generate
from engine.testing.pipelines import open_pipeline, pipeline_image
from schemas.errors import ModelUnavailable
from schemas.numerics import Numerics

CAPTION = "a painting of a sailing ship"
NUMERICS = Numerics(steps=2, guidance=3.0)
CONFIGS = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}
MEAN, STD = [0.5, -1.0, 0.3, 0.8], [2.0, 0.5, 1.5, 3.0]


@pytest.fixture(scope="module")
def folders(tiny_sd: Path, tiny_families: dict[str, Path]) -> dict[str, Path]:
    return {"sd": tiny_sd, **tiny_families}


@pytest.fixture(scope="module")
def plain(folders: dict[str, Path]) -> dict[str, torch.Tensor]:
    """Return the image of every folder as it is."""
    return {family: drawn(folder) for family, folder in folders.items()}


def with_settings(folder: Path, out: Path, part: str, settings: Mapping[str, object]) -> Path:
    """Return a copy of a folder whose part, "" for the pipeline itself, has other settings."""
    copy = Path(shutil.copytree(folder, out / "model"))
    name = CONFIGS.get(part, "config.json") if part else "model_index.json"
    file = copy / part / name
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return copy


def drawn(folder: Path) -> torch.Tensor:
    model = open_model(str(folder), device="cpu")
    return generate(model, [CAPTION], seeds=[3], numerics=NUMERICS)


@pytest.mark.parametrize(
    ("family", "part", "settings"),
    [
        ("sd", "vae", {"scaling_factor": 0.7}),
        ("sd", "scheduler", {"prediction_type": "v_prediction"}),
        ("sd", "scheduler", {"timestep_spacing": "trailing", "thresholding": True}),
        ("sd", "unet", {"center_input_sample": True}),
        ("sd", "text_encoder", {"hidden_act": "gelu"}),
        ("sdxl", "vae", {"latents_mean": MEAN, "latents_std": STD}),
        ("sdxl", "", {"force_zeros_for_empty_prompt": False}),
        ("sdxl", "text_encoder_2", {"hidden_act": "quick_gelu"}),
        ("lcm", "scheduler", {"original_inference_steps": 5}),
        ("if", "scheduler", {"variance_type": "fixed_small"}),
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
    expected = pipeline_image(open_pipeline(folder), CAPTION, seed=3, numerics=NUMERICS)
    assert torch.allclose(drawn(folder), expected, atol=1e-4)
    assert not torch.allclose(plain[family], expected, atol=1e-3), "it tells nothing"


@pytest.mark.parametrize(
    ("family", "part", "settings"),
    [
        ("sd", "vae", {"latents_mean": MEAN, "latents_std": STD, "shift_factor": 0.5}),
        ("sd", "scheduler", {"steps_offset": 0, "clip_sample": True}),
        ("sdxl", "vae", {"shift_factor": 0.5, "force_upcast": False, "latents_mean": MEAN}),
        ("sdxl", "text_encoder", {"use_attention_mask": True}),
        ("sd", "", {"requires_safety_checker": True}),
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
    expected = pipeline_image(open_pipeline(folder), CAPTION, seed=3, numerics=NUMERICS)
    assert torch.allclose(drawn(folder), expected, atol=1e-4)
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
        ("sdxl", "unet", {"addition_embed_type": None}, "addition_embed_type = None"),
        ("sdxl", "text_encoder_2", {"projection_dim": 48}, "projection_class_embeddings_input_dim"),
        ("if", "unet", {"out_channels": 3}, "out_channels = 3"),
        ("if", "text_encoder", {"pad_token_id": 1}, "pad_token_id = 1"),
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
