"""The text encoder: a small CLIPTextModel, trained against a throw-away convolutional image tower.

Shapes: N captions and images, T tokens, D embedding (suffixes `_NT`, `_ND`, `_NTD`).
"""

import math
from pathlib import Path

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from engine.reference import loop
from engine.reference.captions import LENGTH, tokenize
from engine.reference.contrastive import Batch, Sampler, contrastive_loss
from engine.reference.data import Pool

WIDTH = 128
STEPS, BATCH, RATE, SEED = 450, 192, 1.5e-3, 23


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained CLIP text encoder of 4 layers x 128."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",
    )
    return CLIPTextModel(config)


def conv(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """3 x 3 convolution, group norm, SiLU."""
    layer = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.GroupNorm(8, outputs), nn.SiLU())


class ImageTower(nn.Module):
    """A plain convolutional network from 32 x 32 pixels to one embedding; kept out of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(3, 32, stride=2), conv(32, 64), conv(64, 96, stride=2), conv(96, 128),
            conv(128, 192, stride=2), conv(192, 192),
        )  # fmt: skip
        self.project = nn.Linear(192 * 16, WIDTH)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, image_NCHW: torch.Tensor) -> torch.Tensor:
        """Embeddings (not normalised) of the images, `(N, WIDTH)`."""
        return self.project(self.features(image_NCHW).flatten(1))


def text_loss(
    encoder: CLIPTextModel, tower: ImageTower, batch: Batch, *, tokenizer: CLIPTokenizer
) -> torch.Tensor:
    """Contrastive loss of one batch; padding beyond the longest caption is cut off."""
    ids_NT = tokenize(tokenizer, batch.texts)
    longest = int((ids_NT != tokenizer.eos_token_id).sum(1).max()) + 1
    text_ND = encoder(input_ids=ids_NT[:, :longest]).pooler_output
    scale = tower.scale.clamp(max=math.log(100)).exp()
    image_ND = tower(batch.image_NCHW)
    return contrastive_loss(image_ND, text_ND, match_NN=batch.match_NN, scale=scale)


def train_text(
    pool: Pool, work: Path, *, tokenizer: CLIPTokenizer, steps: int = STEPS
) -> CLIPTextModel:
    """Train (or go on training) the text encoder; its checkpoint is `work`/text.pt."""
    torch.manual_seed(SEED)
    encoder, tower = build_text_encoder(tokenizer), ImageTower()
    both = nn.ModuleDict({"encoder": encoder, "tower": tower})
    sampler = Sampler(pool)

    def loss_of(rng: torch.Generator) -> torch.Tensor:
        return text_loss(encoder, tower, sampler.draw(BATCH, rng=rng), tokenizer=tokenizer)

    numbers = {"steps": steps, "batch": BATCH, "rate": RATE, "seed": SEED, "decay": 0.99}
    loop.train("text", both, loss_of, work=work, **numbers)
    return encoder.eval()
