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
    """A random batch of training images in [-1, 1]."""
    train = pool.train
    rows = train[torch.randint(len(train), (batch,), generator=rng)]
    copies = torch.randint(pool.image_NKCHW.shape[1], (batch,), generator=rng)
    return to_float(pool.image_NKCHW[rows, copies])


def train_vae(pool: Pool, work: Path, *, steps: int = STEPS) -> AutoencoderKL:
    """Train (or go on training) the autoencoder; its checkpoint is `work`/vae.pt."""
    torch.manual_seed(SEED)
    vae = build_vae().to(memory_format=torch.channels_last)
    optimizer = loop.adamw(vae)
    average = loop.Average(vae, decay=0.99)
    path = work / "vae.pt"
    state = loop.load(path)
    start = state.get("step", 0)
    if state:
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.weights = state["average"]
    progress = loop.Progress("vae", steps=steps)
    for step in range(start, steps):
        rng = torch.Generator().manual_seed(SEED * 1_000_003 + step)
        loop.set_rate(optimizer, loop.learning_rate(step, steps=steps, peak=RATE))
        image_NCHW = sample_images(pool, batch=BATCH, rng=rng)
        loss = vae_loss(vae, image_NCHW.to(memory_format=torch.channels_last), rng=rng)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update(vae, step=step)
        progress(step, loss.item(), samples=BATCH)
        if (step + 1) % 200 == 0 or step + 1 == steps:
            weights = {"model": vae.state_dict(), "average": average.weights}
            loop.save(path, {"step": step + 1, "optimizer": optimizer.state_dict(), **weights})
    vae.load_state_dict(average.weights)
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
    optimizer, average = loop.adamw(vae), loop.Average(vae, decay=0.995)
    path = work / "decoder.pt"
    state = loop.load(path)
    if state:
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.weights = state["average"]
    progress = loop.Progress("decoder", steps=steps)
    for step in range(state.get("step", 0), steps):
        rng = torch.Generator().manual_seed(SEED * 2_000_003 + step)
        loop.set_rate(optimizer, loop.learning_rate(step, steps=steps, peak=RATE))
        image_NCHW = sample_images(pool, batch=BATCH, rng=rng)
        image_NCHW = image_NCHW.to(memory_format=torch.channels_last)
        with torch.no_grad():
            latent_NCHW = vae.encode(image_NCHW).latent_dist.mean
        loss = decoder_loss(vae, latent_NCHW, image_NCHW, rng=rng)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update(vae, step=step)
        progress(step, loss.item(), samples=BATCH)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            weights = {"model": vae.state_dict(), "average": average.weights}
            loop.save(path, {"step": step + 1, "optimizer": optimizer.state_dict(), **weights})
    vae.load_state_dict(average.weights)
    return vae.to(memory_format=torch.contiguous_format).eval()
