"""Peak host memory of opening a model of full width with random weights, in half precision.

    python -m bench.opening            # Stable Diffusion 1.4
    python -m bench.opening --model sd3   # Stable Diffusion 3 medium without T5

The peak is that of a process of its own, above what it holds with its libraries imported; pages of
mapped files count once, as resident. The weights in use are those in the dtype of their part.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from engine.model.opening import open_model
from tests.models.full_sizes import CLIP_L, OPEN_CLIP_G, SD3
from tests.models.tiny import build_pipeline
from tests.models.transformers import build_sd3

VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}


def parts_of(model: str, tiny: Any) -> dict[str, nn.Module]:
    """Return the networks of a model of full width, without weights."""

    def clip(kind: Any, sizes: dict[str, Any], part: str) -> nn.Module:
        own = getattr(tiny, part).config.to_dict()
        return kind(CLIPTextConfig(**{**own, **sizes, "vocab_size": 49408}))

    with torch.device("meta"):
        if model == "sd1":
            unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
            text = clip(CLIPTextModel, CLIP_L, "text_encoder")
            return {"unet": unet, "vae": AutoencoderKL(**VAE), "text_encoder": text}
        transformer = SD3Transformer2DModel(**SD3)
        return {
            "transformer": transformer,
            "vae": AutoencoderKL(latent_channels=16, **VAE),
            "text_encoder": clip(CLIPTextModelWithProjection, CLIP_L, "text_encoder"),
            "text_encoder_2": clip(CLIPTextModelWithProjection, OPEN_CLIP_G, "text_encoder_2"),
        }


def write_model(model: str, folder: Path) -> None:
    """Write a diffusers folder of full width with random half-precision weights."""
    tiny = build_pipeline() if model == "sd1" else build_sd3(has_t5=False)
    tiny.save_pretrained(folder)
    for part, network in parts_of(model, tiny).items():
        shutil.rmtree(folder / part)
        drawn: Any = network.to(torch.float16).to_empty(device="cpu")
        for tensor in drawn.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(
                    torch.randn(1000)
                    .half()
                    .repeat(-(-tensor.numel() // 1000))[: tensor.numel()]
                    .view_as(tensor)
                    / 50
                )
            else:
                tensor.copy_(torch.arange(tensor.numel()).view_as(tensor))
        drawn.save_pretrained(folder / part, max_shard_size="1GB")


def resident(field: str) -> int:
    """Return a field of this process's memory in bytes: VmRSS now, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure(folder: str) -> None:
    """Print the bytes of the weights in use, and of the peak above what the libraries hold."""
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    model = open_model(folder, dtype="float16", device="cpu")
    networks = [model.denoiser, model.vae, *(encoder.module for encoder in model.encoders)]
    weights = sum(
        tensor.numel() * tensor.element_size()
        for network in networks
        for tensor in network.state_dict().values()
    )
    print(json.dumps({"weights": weights, "peak": resident("VmHWM") - before}))


def main() -> None:
    """Print one line: gigabytes of weights, of the peak, and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=("sd1", "sd3"), default="sd1")
    parser.add_argument("--opened", help="Folder to open and measure in this process.")
    options = parser.parse_args()
    if options.opened:
        measure(options.opened)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_model(options.model, Path(folder))
        command = [sys.executable, "-m", "bench.opening", "--opened", folder]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    got = json.loads(said.splitlines()[-1])
    weights, peak = got["weights"] / 1e9, got["peak"] / 1e9
    print(f"{options.model}: weights {weights:.2f} GB, peak {peak:.2f} GB, {peak / weights:.2f} x")


if __name__ == "__main__":
    main()
