"""The judge: an independent open_clip model with its own tokenizer, architecture and seed.

It shares nothing with the text encoder but the objective. Images are moved, mirrored left to right,
blurred, made noisy and recoloured a little in training, so that it judges drawings it never saw,
and slightly soft generated images, as well.
Shapes: N images and captions, T tokens, D embedding (suffixes `_NCHW`, `_NT`, `_ND`).
"""

import json
import math
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from engine.reference import loop
from engine.reference.captions import build_tokenizer, tokenize
from engine.reference.contrastive import Sampler, contrastive_loss
from engine.reference.data import Pool

SIZE = 32
LENGTH, STEPS, BATCH, RATE, SEED = 24, 3800, 160, 2e-3, 71
DIM = 96
DECAY = 0.995
"""Of the averaged weights."""


def model_config(tokenizer: CLIPTokenizer) -> dict[str, object]:
    """Configuration of the open_clip model: a residual network and a two-layer transformer."""
    return {
        "embed_dim": DIM,
        "vision_cfg": {
            "image_size": SIZE, "timm_model_name": "resnet10t", "timm_model_pretrained": False,
            "timm_pool": "avg", "timm_proj": "linear",
        },
        "text_cfg": {
            "context_length": LENGTH, "vocab_size": len(tokenizer), "width": 96, "heads": 3,
            "layers": 2, "hf_tokenizer_name": "this folder", "pool_type": "argmax",
        },
    }  # fmt: skip


def scorer_tokenizer() -> CLIPTokenizer:
    """A tokenizer that keeps nearly all object words whole, unlike the text encoder's."""
    return build_tokenizer(whole_words=0.95, length=LENGTH)


def build_scorer(tokenizer: CLIPTokenizer) -> CLIP:
    """An untrained scorer."""
    return CLIP(**model_config(tokenizer))  # pyright: ignore[reportArgumentType]


def soften(image_NCHW: torch.Tensor, *, rng: torch.Generator) -> torch.Tensor:
    """Each image with a random share of blur, of noise, and of gain and offset by channel."""
    count = len(image_NCHW)
    blurred_NCHW = F.avg_pool2d(F.pad(image_NCHW, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share_N111 = 0.7 * torch.rand(count, 1, 1, 1, generator=rng) ** 2
    mixed_NCHW = image_NCHW.lerp(blurred_NCHW, share_N111)
    noise_NCHW = torch.randn(image_NCHW.shape, generator=rng)
    mixed_NCHW = mixed_NCHW + noise_NCHW * 0.08 * torch.rand(count, 1, 1, 1, generator=rng) ** 2
    gain_NC11 = 1 + 0.06 * torch.randn(count, 3, 1, 1, generator=rng)
    offset_NC11 = 0.06 * torch.randn(count, 3, 1, 1, generator=rng)
    return (mixed_NCHW * gain_NC11 + offset_NC11).clamp(-1, 1)


def move(image_NCHW: torch.Tensor, *, rng: torch.Generator) -> torch.Tensor:
    """Half of the images mirrored left to right; all turned, scaled and shifted a little."""
    count = len(image_NCHW)
    turn_N = math.radians(8) * (2 * torch.rand(count, generator=rng) - 1)
    scale_N = 0.92 + 0.16 * torch.rand(count, generator=rng)
    mirror_N = 1 - 2 * (torch.rand(count, generator=rng) < 0.5).float()
    theta_N23 = torch.zeros(count, 2, 3)
    theta_N23[:, 0, 0] = theta_N23[:, 1, 1] = turn_N.cos() * scale_N
    theta_N23[:, 1, 0] = turn_N.sin() * scale_N
    theta_N23[:, 0, 1] = -theta_N23[:, 1, 0]
    theta_N23[:, 0] *= mirror_N[:, None]
    theta_N23[:, :, 2] = 0.06 * (2 * torch.rand(count, 2, generator=rng) - 1)
    grid_NHW2 = F.affine_grid(theta_N23, list(image_NCHW.shape), align_corners=False)
    return F.grid_sample(image_NCHW, grid_NHW2, padding_mode="border", align_corners=False)


def scorer_loss(
    scorer: CLIP, image_NCHW: torch.Tensor, ids_NT: torch.Tensor, *, match_NN: torch.Tensor
) -> torch.Tensor:
    """Contrastive loss of one batch."""
    image_ND = scorer.encode_image(image_NCHW.contiguous(memory_format=torch.channels_last))
    text_ND = scorer.encode_text(ids_NT)
    scale = scorer.logit_scale.clamp(max=4.6).exp()
    return contrastive_loss(image_ND, text_ND, match_NN=match_NN, scale=scale)


def train_scorer(pool: Pool, work: Path, *, steps: int = STEPS) -> CLIP:
    """Train (or go on training) the scorer; its checkpoint is `work`/scorer.pt."""
    torch.manual_seed(SEED)
    tokenizer = scorer_tokenizer()
    scorer = build_scorer(tokenizer).train()
    scorer.visual.to(memory_format=torch.channels_last)
    sampler = Sampler(pool)

    def loss_of(rng: torch.Generator) -> torch.Tensor:
        batch = sampler.draw(BATCH, rng=rng)
        image_NCHW = soften(move(batch.image_NCHW, rng=rng), rng=rng)
        ids_NT = tokenize(tokenizer, batch.texts)
        return scorer_loss(scorer, image_NCHW, ids_NT, match_NN=batch.match_NN)

    numbers = {"steps": steps, "batch": BATCH, "rate": RATE, "seed": SEED, "decay": DECAY}
    optimizers = [loop.adamw(scorer, decay=0.05)]
    loop.train("scorer", scorer, loss_of, work=work, optimizers=optimizers, **numbers)
    return scorer.to(memory_format=torch.contiguous_format).eval()


def export_scorer(scorer: CLIP, folder: Path) -> None:
    """Write the folder that open_clip opens as "local-dir:<folder>"."""
    tokenizer = scorer_tokenizer()
    tokenizer.save_pretrained(str(folder))
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    config = {"model_cfg": model_config(tokenizer), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    # Stored as float16; open_clip copies the numbers into its own float32 model.
    state = {
        k: (v.half() if v.is_floating_point() else v).contiguous()
        for k, v in scorer.state_dict().items()
    }
    save_file(state, folder / "open_clip_model.safetensors")


def load_scorer(folder: Path) -> tuple[CLIP, object, object]:
    """Scorer, preprocessing of a PIL image, and tokenizer, as any open_clip user opens them."""
    name = f"local-dir:{folder}"
    scorer, _, preprocess = open_clip.create_model_and_transforms(name)
    return scorer.eval(), preprocess, open_clip.get_tokenizer(name)
