"""The autoencoder: 32 x 32 pixels to 8 x 8 latents of 8 channels.

Shapes: N images, C channels, H and W (suffix `_NCHW`); z are latents before scaling.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL

from engine.reference import loop
from engine.reference.data import Pool, to_float

STEPS, BATCH, RATE, SEED = 1100, 32, 2e-3, 11
DECODER_STEPS = 400
BLUR = 0.15
"""Noise (latents have a standard deviation of about 2.2) that the finished decoder must bear."""
KL = 3e-4
"""Weight of the mean divergence of a latent number from a unit normal."""


def build_vae() -> AutoencoderKL:
    """An untrained autoencoder, f = 4, without attention."""
    blocks = 3
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(24, 48, 96),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=32,
        mid_block_add_attention=False,
    )


def vae_loss(vae: AutoencoderKL, image_NCHW: torch.Tensor, *, rng: torch.Generator) -> torch.Tensor:
    """Absolute plus squared error of the reconstruction, plus the weighted divergence."""
    posterior = vae.encode(image_NCHW).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=rng)
    decoded_NCHW = vae.decode(posterior.mean + posterior.std * noise).sample
    error_NCHW = decoded_NCHW - image_NCHW
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    return error_NCHW.abs().mean() + error_NCHW.square().mean() + KL * kl


def sample_images(pool: Pool, *, batch: int, rng: torch.Generator) -> torch.Tensor:
    """A random batch of training images in [-1, 1], channels last."""
    train = pool.train
    rows = train[torch.randint(len(train), (batch,), generator=rng)]
    copies = torch.randint(pool.image_NKCHW.shape[1], (batch,), generator=rng)
    return to_float(pool.image_NKCHW[rows, copies]).to(memory_format=torch.channels_last)


def train_vae(pool: Pool, work: Path, *, steps: int = STEPS) -> AutoencoderKL:
    """Train (or go on training) the autoencoder; its checkpoint is `work`/vae.pt."""
    torch.manual_seed(SEED)
    vae = build_vae().to(memory_format=torch.channels_last)

    def loss_of(rng: torch.Generator) -> torch.Tensor:
        return vae_loss(vae, sample_images(pool, batch=BATCH, rng=rng), rng=rng)

    numbers = {"steps": steps, "batch": BATCH, "rate": RATE, "seed": SEED, "decay": 0.99}
    loop.train("vae", vae, loss_of, work=work, **numbers)
    return vae.to(memory_format=torch.contiguous_format).eval()


def decoder_loss(
    vae: AutoencoderKL, latent_NCHW: torch.Tensor, image_NCHW: torch.Tensor, *, rng: torch.Generator
) -> torch.Tensor:
    """Error of decoding slightly noisy latents, as the denoiser's will be."""
    noise_NCHW = torch.randn(latent_NCHW.shape, generator=rng)
    error_NCHW = vae.decode(latent_NCHW + BLUR * noise_NCHW).sample - image_NCHW
    return error_NCHW.abs().mean() + error_NCHW.square().mean()


def train_decoder(
    pool: Pool, work: Path, *, vae: AutoencoderKL, steps: int = DECODER_STEPS
) -> AutoencoderKL:
    """Train only the decoder for longer: latents stay as they are; `work`/decoder.pt is kept."""
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    vae.to(memory_format=torch.channels_last)

    def loss_of(rng: torch.Generator) -> torch.Tensor:
        image_NCHW = sample_images(pool, batch=BATCH, rng=rng)
        with torch.no_grad():
            latent_NCHW = vae.encode(image_NCHW).latent_dist.mean
        return decoder_loss(vae, latent_NCHW, image_NCHW, rng=rng)

    numbers = {"steps": steps, "batch": BATCH, "rate": RATE, "seed": SEED + 1, "decay": 0.995}
    loop.train("decoder", vae, loss_of, work=work, **numbers)
    return vae.to(memory_format=torch.contiguous_format).eval()
