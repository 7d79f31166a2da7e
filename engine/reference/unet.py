"""emoji-sd's denoiser: a small UNet on 8 x 8 latents, predicting v.

Shapes: N samples, C latent channels, H and W latent pixels, T tokens, D text width (suffixes
`_NCHW`, `_NTD`).
"""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from engine.reference import loop
from engine.reference.captions import tokenize
from engine.reference.latents import Latents, draw, entry_weights, stratified
from engine.reference.phases import Phase
from engine.reference.sampling import CROWDED
from engine.reference.text import WIDTH
from engine.reference.vae import CHANNELS

BATCH, SEED = 64, 37
PHASES = (
    Phase(name="unet", steps=7000, rate=1e-3, seed=SEED),
    Phase(name="unet_crowded", steps=5000, rate=8e-4, seed=SEED + 1, mix=CROWDED),
)
DECAY = 0.999
"""Decay of the averaged weights."""


def build_scheduler() -> DDIMScheduler:
    """Return DDIM on 1,000 linear-in-root steps that ends in pure noise, predicting v."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def build_unet() -> UNet2DConditionModel:
    """Return an untrained UNet on 8 x 8 latents, two levels, cross-attention everywhere."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 128),
        layers_per_block=1,
        attention_head_dim=4,
        norm_num_groups=16,
        cross_attention_dim=WIDTH,
    )


def unet_loss(
    unet: UNet2DConditionModel,
    latent_NCHW: torch.Tensor,
    text_NTD: torch.Tensor,
    *,
    scheduler: DDIMScheduler,
    rng: torch.Generator,
) -> torch.Tensor:
    """Return the squared error of v = sqrt(a) noise - sqrt(1 - a) latent (Salimans & Ho 2022)."""
    slices_N = stratified(len(latent_NCHW), rng=rng)
    time_N = (slices_N * scheduler.config["num_train_timesteps"]).long()
    noise_NCHW = torch.randn(latent_NCHW.shape, generator=rng)
    noisy_NCHW = scheduler.add_noise(latent_NCHW, noise_NCHW, time_N)
    target_NCHW = scheduler.get_velocity(latent_NCHW, noise_NCHW, time_N)
    guess_NCHW = unet(noisy_NCHW, time_N, encoder_hidden_states=text_NTD).sample
    return (guess_NCHW - target_NCHW).square().mean()


def train_unet(
    data: Latents,
    work: Path,
    *,
    encoder: CLIPTextModelWithProjection,
    tokenizer: CLIPTokenizer,
) -> UNet2DConditionModel:
    """Train the denoiser, each phase from its checkpoint in `work` if there is one."""
    torch.manual_seed(SEED)
    unet, scheduler = build_unet(), build_scheduler()
    # The backward pass of fused attention is slow on a CPU.
    unet.set_attn_processor(AttnProcessor())

    for phase in PHASES:
        weight_M = entry_weights(data, phase.mix)

        def loss_of(rng: torch.Generator, weight_M: torch.Tensor = weight_M) -> torch.Tensor:
            latent_NCHW, texts = draw(data, weight_M, BATCH, rng=rng)
            with torch.no_grad():
                text_NTD = encoder(input_ids=tokenize(tokenizer, texts)).last_hidden_state
            return unet_loss(unet, latent_NCHW, text_NTD, scheduler=scheduler, rng=rng)

        optimizers = loop.muon_and_adamw(unet, outer=("conv_in.", "conv_out.", "time_embedding."))
        loop.train(
            phase,
            unet,
            loss_of,
            work=work,
            batch=BATCH,
            decay=DECAY,
            warmup=200,
            optimizers=optimizers,
        )
    return unet.eval()
