"""The text encoders: two small CLIP text models, trained against throw-away image towers.

emoji-sd reads the first one's last hidden states; emoji-dit reads both, and their projections.
Shapes: N captions and images, T tokens, D embedding (suffixes `_NT`, `_ND`, `_NTD`).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from engine.reference import loop
from engine.reference.captions import LENGTH, build_tokenizer, tokenize
from engine.reference.contrastive import Batch, contrastive_loss, draw_batch
from engine.reference.phases import Phase

WIDTH = 128
STEPS, BATCH, RATE = 2000, 128, 1.5e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderRecipe:
    """The settings in which the two text encoders differ."""

    name: str
    layers: int
    seed: int
    whole_words: float
    """Share of objects whose words its tokenizer keeps whole."""

    def tokenizer(self) -> CLIPTokenizer:
        """Return the encoder's tokenizer."""
        return build_tokenizer(whole_words=self.whole_words)


FIRST = EncoderRecipe(name="text", layers=4, seed=23, whole_words=2 / 3)
SECOND = EncoderRecipe(name="text_2", layers=3, seed=29, whole_words=2 / 3)


def build_text_encoder(
    tokenizer: CLIPTokenizer, *, layers: int = FIRST.layers
) -> CLIPTextModelWithProjection:
    """Return an untrained CLIP text encoder of width 128 with its projection."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",
    )
    return CLIPTextModelWithProjection(config)


def conv(inputs: int, outputs: int, *, side: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution with group norm and SiLU."""
    layer = nn.Conv2d(inputs, outputs, side, stride=stride, padding=side // 2, bias=False)
    return nn.Sequential(layer, nn.GroupNorm(8, outputs), nn.SiLU())


class ImageTower(nn.Module):
    """A plain convolutional network from 64 x 64 pixels to one embedding; not part of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(3, 48, side=5, stride=4), conv(48, 96), conv(96, 128, stride=2),
            conv(128, 192, stride=2), conv(192, 192),
        )  # fmt: skip
        self.project = nn.Linear(192 * 16, WIDTH)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, image_NCHW: torch.Tensor) -> torch.Tensor:
        """Return embeddings (not normalized) of the images, `(N, WIDTH)`."""
        return self.project(self.features(image_NCHW).flatten(1))


def text_loss(
    encoder: CLIPTextModelWithProjection,
    tower: ImageTower,
    batch: Batch,
    *,
    tokenizer: CLIPTokenizer,
) -> torch.Tensor:
    """Return the contrastive loss of one batch; padding beyond the longest caption is cut off."""
    ids_NT = tokenize(tokenizer, batch.texts)
    longest = int((ids_NT != tokenizer.eos_token_id).sum(1).max()) + 1
    text_ND = encoder(input_ids=ids_NT[:, :longest]).text_embeds
    scale = tower.scale.clamp(max=math.log(100)).exp()
    image_ND = tower(batch.image_NCHW)
    return contrastive_loss(image_ND, text_ND, match_NN=batch.match_NN, scale=scale)


def train_text(
    sprites: torch.Tensor, work: Path, recipe: EncoderRecipe
) -> CLIPTextModelWithProjection:
    """Train a text encoder, from its checkpoint `work`/<name>.pt if there is one."""
    torch.manual_seed(recipe.seed)
    tokenizer = recipe.tokenizer()
    encoder, tower = build_text_encoder(tokenizer, layers=recipe.layers), ImageTower()
    both = nn.ModuleDict({"encoder": encoder, "tower": tower})

    def loss_of(rng: torch.Generator) -> torch.Tensor:
        return text_loss(encoder, tower, draw_batch(sprites, BATCH, rng=rng), tokenizer=tokenizer)

    phase = Phase(name=recipe.name, steps=STEPS, rate=RATE, seed=recipe.seed)
    loop.train(phase, both, loss_of, work=work, batch=BATCH, decay=0.99)
    return encoder.eval()
