"""emoji-dit's denoiser: a joint transformer of text and image tokens, trained by flow matching.

Shapes: N samples, C latent channels, H and W latent pixels, T text rows, D text width, P pooled
width (suffixes `_NCHW`, `_NTD`, `_NP`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from engine.model.families.joint_attention import TRAINED_LENGTH
from engine.reference import loop
from engine.reference.captions import tokenize
from engine.reference.latents import Latents, draw, entry_weights, stratified
from engine.reference.phases import Phase
from engine.reference.sampling import CROWDED
from engine.reference.text import WIDTH
from engine.reference.vae import CHANNELS

BATCH, SEED = 64, 43
PHASES = (
    Phase(name="dit", steps=3800, rate=1e-3, seed=SEED),
    Phase(name="dit_crowded", steps=7000, rate=1e-3, seed=SEED + 1, mix=CROWDED),
)
DECAY = 0.999
"""Decay of the averaged weights."""
SHIFT = 1.5
"""Shift of the noise levels toward noise (Esser et al. 2024, section 5.3.2)."""
ZERO_ROWS = 1
"""Rows of zeros in place of the third text encoder's: every call passes it to the pipeline as
`max_sequence_length`."""
LAYERS, HEADS, HEAD_WIDTH = 6, 5, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConditioning:
    """The two text encoders, which give the rows and the pooled vector of a caption."""

    encoders: tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection]
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer]

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return rows `(N, T, D)` and pooled vectors `(N, P)` as StableDiffusion3Pipeline does."""
        rows, pooled = [], []
        for encoder, tokenizer in zip(self.encoders, self.tokenizers, strict=True):
            output = encoder(input_ids=tokenize(tokenizer, texts), output_hidden_states=True)
            rows.append(output.hidden_states[-2])
            pooled.append(output.text_embeds)
        text_NTD = torch.cat(rows, dim=-1)
        zeros_NTD = text_NTD.new_zeros(len(texts), ZERO_ROWS, text_NTD.shape[-1])
        return torch.cat([text_NTD, zeros_NTD], dim=1), torch.cat(pooled, dim=-1)


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Return Euler's method on the flow, its noise levels shifted as in training."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT)


def build_dit() -> SD3Transformer2DModel:
    """Return an untrained transformer on 64 image tokens, one a latent pixel."""
    dit = SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=LAYERS,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=HEADS * HEAD_WIDTH,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
    dit.register_to_config(**{TRAINED_LENGTH: ZERO_ROWS})
    return dit


def noise_levels(count: int, *, rng: torch.Generator) -> torch.Tensor:
    """Return one shifted noise level of each of `count` equal slices, in [0, 1)."""
    level_N = stratified(count, rng=rng)
    return SHIFT * level_N / (1 + (SHIFT - 1) * level_N)


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any
) -> torch.Tensor:
    """Return softmax attention without a mask, written out: of the forms tried on a CPU, its
    backward pass is the fastest."""
    scale = query.shape[-1] ** -0.5
    return (scale * query @ key.transpose(-2, -1)).softmax(-1) @ value


def dit_loss(
    dit: Callable[..., tuple[torch.Tensor, ...]],
    latent_NCHW: torch.Tensor,
    text_NTD: torch.Tensor,
    pooled_NP: torch.Tensor,
    *,
    rng: torch.Generator,
) -> torch.Tensor:
    """Return the squared error of noise - latent at (1 - s) latent + s noise.

    Lipman et al. 2023, "Flow matching for generative modeling".
    """
    level_N = noise_levels(len(latent_NCHW), rng=rng)
    noise_NCHW = torch.randn(latent_NCHW.shape, generator=rng)
    noisy_NCHW = torch.lerp(latent_NCHW, noise_NCHW, level_N[:, None, None, None])
    (guess_NCHW,) = dit(
        hidden_states=noisy_NCHW,
        encoder_hidden_states=text_NTD,
        pooled_projections=pooled_NP,
        timestep=1000 * level_N,
        return_dict=False,
    )
    return (guess_NCHW - (noise_NCHW - latent_NCHW)).square().mean()


def train_dit(
    data: Latents,
    work: Path,
    *,
    conditioning: TextConditioning,
) -> SD3Transformer2DModel:
    """Train the transformer, each phase from its checkpoint in `work` if there is one.

    It is compiled (which needs a C++ compiler): a batch takes 0.61 s of processor time, not 1.00.
    """
    torch.manual_seed(SEED)
    dit = build_dit()
    compiled = torch.compile(dit)

    outer = ("pos_embed.", "context_embedder.", "time_text_embed.", "proj_out.", "norm_out.")
    for phase in PHASES:
        weight_M = entry_weights(data, phase.mix)

        def loss_of(rng: torch.Generator, weight_M: torch.Tensor = weight_M) -> torch.Tensor:
            latent_NCHW, texts = draw(data, weight_M, BATCH, rng=rng)
            return dit_loss(compiled, latent_NCHW, *conditioning(texts), rng=rng)

        optimizers = loop.muon_and_adamw(dit, outer=outer)
        with mock.patch.object(F, "scaled_dot_product_attention", attention):
            loop.train(
                phase,
                dit,
                loss_of,
                work=work,
                batch=BATCH,
                decay=DECAY,
                warmup=200,
                optimizers=optimizers,
            )
    return dit.eval()
