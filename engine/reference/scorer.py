"""The judge: an independent open_clip model with its own tokenizer, architecture and seed.

It shares nothing with the text encoders but the objective. Images are turned, moved, scaled,
blurred, made noisy and recolored a little in training, so that it judges drawings it never saw,
and slightly soft generated images, as well.
Shapes: N images and captions, T tokens, D embedding, A attributes (suffixes `_NCHW`, `_NT`, `_ND`,
`_NA`).
"""

import json
import math
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTokenizer

from engine.reference import loop
from engine.reference.captions import build_tokenizer, tokenize
from engine.reference.contrastive import Batch, contrastive_loss, draw_batch
from engine.reference.phases import Phase
from engine.reference.sampling import CROWDED, SMALL
from engine.reference.wordings import ATTRIBUTES

SIDE, FIRST_SIDE = 64, 48
"""Side in pixels of its images, and in its first phase: a quarter fewer makes that half as slow."""
LENGTH, BATCH, SEED = 24, 128, 71
PHASES = (
    Phase(name="scorer", steps=4500, rate=2e-3, seed=SEED),
    Phase(name="scorer_crowded", steps=1500, rate=1e-3, seed=SEED + 1, mix=CROWDED),
    Phase(name="scorer_small", steps=1500, rate=1e-3, seed=SEED + 2, mix=SMALL),
)
DIM = 128
DECAY = 0.995
"""Decay of the averaged weights."""
HEADS_WEIGHT = 0.25
"""Weight of the attributes' cross-entropies relative to the contrastive loss."""


def model_config(tokenizer: CLIPTokenizer) -> dict[str, object]:
    """Return the open_clip model's configuration: a residual network, a two-layer transformer."""
    return {
        "embed_dim": DIM,
        "vision_cfg": {
            "image_size": SIDE, "timm_model_name": "resnet10t", "timm_model_pretrained": False,
            "timm_pool": "avg", "timm_proj": "linear",
        },
        "text_cfg": {
            "context_length": LENGTH, "vocab_size": len(tokenizer), "width": DIM, "heads": 4,
            "layers": 2, "hf_tokenizer_name": "this folder", "pool_type": "argmax",
        },
    }  # fmt: skip


def scorer_tokenizer() -> CLIPTokenizer:
    """Return a tokenizer that keeps nearly all object words whole, unlike the text encoders'."""
    return build_tokenizer(whole_words=0.95, length=LENGTH)


class Student(nn.Module):
    """The scorer with one linear classifier an attribute, which only training uses.

    The classifiers read the image's embedding, which must then contain all attributes; a
    contrastive batch only compares it with other images' captions.
    """

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.scorer = CLIP(**model_config(tokenizer))  # pyright: ignore[reportArgumentType]
        self.heads = nn.ModuleList(nn.Linear(DIM, len(v)) for v in ATTRIBUTES.values())

    def attribute_loss(self, image_ND: torch.Tensor, attribute_NA: torch.Tensor) -> torch.Tensor:
        """Return the sum of the classifiers' mean cross-entropies."""
        losses = [
            F.cross_entropy(head(image_ND).float(), attribute_NA[:, row])
            for row, head in enumerate(self.heads)
        ]
        return torch.stack(losses).sum()


def soften(image_NCHW: torch.Tensor, *, rng: torch.Generator) -> torch.Tensor:
    """Return each image with a random share of blur, noise, and gain and offset by channel."""
    count = len(image_NCHW)
    blurred_NCHW = F.avg_pool2d(F.pad(image_NCHW, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share_N111 = 0.7 * torch.rand(count, 1, 1, 1, generator=rng) ** 2
    mixed_NCHW = image_NCHW.lerp(blurred_NCHW, share_N111)
    noise_NCHW = torch.randn(image_NCHW.shape, generator=rng)
    mixed_NCHW = mixed_NCHW + noise_NCHW * 0.08 * torch.rand(count, 1, 1, 1, generator=rng) ** 2
    gain_NC11 = 1 + 0.06 * torch.randn(count, 3, 1, 1, generator=rng)
    offset_NC11 = 0.06 * torch.randn(count, 3, 1, 1, generator=rng)
    return (mixed_NCHW * gain_NC11 + offset_NC11).clamp(-1, 1)


def move(image_NCHW: torch.Tensor, *, side: int, rng: torch.Generator) -> torch.Tensor:
    """Return the images turned, scaled and shifted a little, of `side` pixels."""
    count = len(image_NCHW)
    turn_N = math.radians(6) * (2 * torch.rand(count, generator=rng) - 1)
    scale_N = 0.94 + 0.12 * torch.rand(count, generator=rng)
    theta_N23 = torch.zeros(count, 2, 3)
    theta_N23[:, 0, 0] = theta_N23[:, 1, 1] = turn_N.cos() * scale_N
    theta_N23[:, 1, 0] = turn_N.sin() * scale_N
    theta_N23[:, 0, 1] = -theta_N23[:, 1, 0]
    theta_N23[:, :, 2] = 0.05 * (2 * torch.rand(count, 2, generator=rng) - 1)
    grid_NHW2 = F.affine_grid(theta_N23, [count, 3, side, side], align_corners=False)
    return F.grid_sample(image_NCHW, grid_NHW2, padding_mode="border", align_corners=False)


def scorer_loss(
    student: Student, batch: Batch, *, side: int, tokenizer: CLIPTokenizer, rng: torch.Generator
) -> torch.Tensor:
    """Return the contrastive loss of one batch plus the weighted loss of the classifiers."""
    scorer = student.scorer
    image_NCHW = soften(move(batch.image_NCHW, side=side, rng=rng), rng=rng)
    image_ND = scorer.encode_image(image_NCHW.contiguous(memory_format=torch.channels_last))
    text_ND = scorer.encode_text(tokenize(tokenizer, batch.texts))
    scale = scorer.logit_scale.clamp(max=4.6).exp()
    contrast = contrastive_loss(image_ND, text_ND, match_NN=batch.match_NN, scale=scale)
    return contrast + HEADS_WEIGHT * student.attribute_loss(image_ND, batch.attribute_NA)


def train_scorer(sprites: torch.Tensor, work: Path) -> CLIP:
    """Train the scorer, each phase from its checkpoint in `work` if there is one."""
    torch.manual_seed(SEED)
    tokenizer = scorer_tokenizer()
    student = Student(tokenizer).train()
    student.scorer.visual.to(memory_format=torch.channels_last)

    for phase in PHASES:
        side = FIRST_SIDE if phase is PHASES[0] else SIDE

        def loss_of(rng: torch.Generator, phase: Phase = phase, side: int = side) -> torch.Tensor:
            batch = draw_batch(sprites, BATCH, mix=phase.mix, rng=rng)
            return scorer_loss(student, batch, side=side, tokenizer=tokenizer, rng=rng)

        loop.train(
            phase, student, loss_of, work=work, batch=BATCH, decay=DECAY,
            optimizers=[loop.adamw(student, decay=0.05)],
        )  # fmt: skip
    return student.scorer.to(memory_format=torch.contiguous_format).eval()


def export_scorer(scorer: CLIP, folder: Path) -> None:
    """Write the folder that open_clip opens as "local-dir:<folder>"."""
    folder.mkdir(parents=True, exist_ok=True)
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
    """Return scorer, preprocessing of a PIL image, and tokenizer, as any open_clip user does."""
    name = f"local-dir:{folder}"
    scorer, _, preprocess = open_clip.create_model_and_transforms(name)
    return scorer.eval(), preprocess, open_clip.get_tokenizer(name)
