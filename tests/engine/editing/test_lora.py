"""The LoRA of an edit: its exact rank, and that diffusers draws the same images with it."""

from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file

from engine.editing.delta import replaced, weights_of
from engine.editing.lora import KOHYA_FILE, PEFT_FILE, factorize, without_loader, write_lora
from engine.model.model import Diffusion
from engine.model.opening import from_pipeline, open_model
from engine.model.sampling import generate
from schemas.numerics import Numerics
from tests.covering import slow
from tests.rounding import ROUNDING, assert_near

NUMERICS = Numerics(steps=3, guidance=3.0)
PROMPTS = ("a red apple", "an old castle at night")
FLAT, OLD = "encoder.layers", "text_model.encoder.layers"
BLOCK = "attentions.0.transformer_blocks.0.attn2"
EDITS = {
    "sd1-out_proj": ("sd1", {f"text_encoder.{FLAT}.0.self_attn.out_proj": 2}),
    "sd1-fc2": ("sd1", {f"text_encoder.{FLAT}.1.mlp.fc2": 3}),
    "sd1-both": (
        "sd1",
        {f"text_encoder.{FLAT}.0.self_attn.out_proj": 2, f"text_encoder.{FLAT}.0.mlp.fc2": 4},
    ),
    "sd1-unet": (
        "sd1",
        {f"unet.down_blocks.0.{BLOCK}.to_k": 1, f"unet.down_blocks.0.{BLOCK}.to_v": 3},
    ),
    "sd2": (
        "sd2",
        {f"text_encoder.{FLAT}.0.self_attn.out_proj": 1, f"unet.mid_block.{BLOCK}.to_v": 2},
    ),
    "sdxl-first": ("sdxl", {f"text_encoder.{FLAT}.0.self_attn.out_proj": 2}),
    "sdxl-second": ("sdxl", {f"text_encoder_2.{OLD}.1.mlp.fc2": 2}),
    "sdxl-all": (
        "sdxl",
        {
            f"text_encoder.{FLAT}.0.mlp.fc2": 3,
            f"text_encoder_2.{OLD}.0.self_attn.out_proj": 1,
            f"unet.up_blocks.0.{BLOCK}.to_k": 2,
        },
    ),
}


@pytest.fixture(scope="module")
def folders(tiny_sd: Path, tiny_families: dict[str, Path]) -> dict[str, Path]:
    return {"sd1": tiny_sd, **tiny_families}


def low_rank(shape: torch.Size, rank: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(rank)
    up, down = (
        torch.randn(size, generator=rng, dtype=torch.float64)
        for size in ((shape[0], rank), (rank, shape[1]))
    )
    return up @ down / shape[1] ** 0.5


def images(model: Diffusion) -> torch.Tensor:
    return generate(model, PROMPTS, seeds=[0, 1], numerics=NUMERICS)


# Those marked slow change one kind of projection each, of those that "both" and "all" change.
@pytest.mark.parametrize(
    "edit",
    [
        slow(edit) if edit in ("sd1-out_proj", "sd1-fc2", "sdxl-first", "sdxl-second") else edit
        for edit in EDITS
    ],
)
def test_diffusers_draws_the_same_images(
    folders: dict[str, Path], tmp_path: Path, edit: str
) -> None:
    name, ranks = EDITS[edit]
    model = open_model(str(folders[name]))
    own = weights_of(model)
    changes = {f"{n}.weight": low_rank(own[f"{n}.weight"].shape, r) for n, r in ranks.items()}
    factors = {n: factorize(change, own[n]) for n, change in changes.items()}
    assert [f.rank for f in factors.values()] == list(ranks.values())
    write_lora(tmp_path, factors, model=model, about={"modelspec.title": "an edit"})
    before = images(model)
    with replaced(model, {n: (own[n].double() + c).float() for n, c in changes.items()}):
        after = images(model)
    assert (after - before).abs().max() > 1000 * ROUNDING
    for weight_name in (None, KOHYA_FILE):
        loaded = images(open_with_lora(model, folders[name], tmp_path, weight_name=weight_name))
        assert_near(loaded, after, weight_name)


def open_with_lora(
    model: Diffusion, folder: Path, lora: Path, *, weight_name: str | None
) -> Diffusion:
    """Return a fresh model whose networks are those of diffusers' pipeline after loading."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.load_lora_weights(str(lora), weight_name=weight_name)
    return from_pipeline(
        pipeline, name=model.name, family=model.family, device=model.device, dtype=model.dtype
    )


def test_names_are_those_that_image_tools_read(folders: dict[str, Path], tmp_path: Path) -> None:
    names = {f"{name}.weight": rank for name, rank in EDITS["sdxl-all"][1].items()}
    model = open_model(str(folders["sdxl"]))
    own = weights_of(model)
    changes = {name: low_rank(own[name].shape, rank) for name, rank in names.items()}
    write_lora(tmp_path, {n: factorize(c, own[n]) for n, c in changes.items()}, model=model)
    kohya = load_file(tmp_path / KOHYA_FILE)
    assert {name.partition(".")[0] for name in kohya} == {
        "lora_te1_text_model_encoder_layers_0_mlp_fc2",
        "lora_te2_text_model_encoder_layers_0_self_attn_out_proj",
        "lora_unet_up_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k",
    }
    for stem in {name.partition(".")[0] for name in kohya}:
        up, down = (kohya[f"{stem}.lora_{side}.weight"].double() for side in ("up", "down"))
        scale = float(kohya[f"{stem}.alpha"]) / len(down)
        errors = [(scale * up @ down - c).norm() / c.norm() for c in changes.values()
                  if c.shape == (len(up), down.shape[1])]  # fmt: skip
        assert min(errors) < 1e-6
    assert f"text_encoder.{OLD}.0.mlp.fc2.lora_linear_layer.up.weight" in load_file(
        tmp_path / PEFT_FILE
    )


@pytest.mark.parametrize("rank", [0, 1, 3, 16])
@pytest.mark.parametrize("shape", [(24, 16), (16, 16), (16, 24)])
def test_the_rank_is_exact_and_the_remainder_below_rounding(
    shape: tuple[int, int], rank: int
) -> None:
    rng = torch.Generator().manual_seed(9)
    original = torch.randn(shape, generator=rng)
    change = low_rank(original.shape, rank)
    factors = factorize(change, original)
    assert factors.rank == rank
    left = change - factors.up_ER @ factors.down_RD
    assert left.norm() <= 2.0**-24 * original.double().norm()


def test_singular_values_below_rounding_are_dropped() -> None:
    rng = torch.Generator().manual_seed(9)
    original = torch.randn(24, 16, generator=rng)
    dust = 1e-9 * torch.randn(24, 16, generator=rng, dtype=torch.float64)
    assert factorize(low_rank(original.shape, 3) + dust, original).rank == 3


def test_t5_gets_no_lora(folders: dict[str, Path], tmp_path: Path) -> None:
    model = open_model(str(folders["if"]))
    name = "text_encoder.encoder.block.0.layer.0.SelfAttention.o.weight"
    own = weights_of(model)[name]
    assert without_loader(model, [name]) == ["text_encoder"]
    with pytest.raises(ValueError, match="loads no LoRA into text_encoder"):
        write_lora(tmp_path, {name: factorize(low_rank(own.shape, 1), own)}, model=model)
    assert list(tmp_path.iterdir()) == []
