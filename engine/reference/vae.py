"""The autoencoder that both models share: 64 x 64 pixels to 8 x 8 latents of 12 channels.

Shapes: N images, C channels, H and W (suffix `_NCHW`); z are latents before scaling.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL

from engine.reference import loop
from engine.reference.phases import Phase
from engine.reference.sampling import BROAD, SMALL, Mix, random_scene
from engine.reference.scenes import FIXED, compose, random_placements
from engine.reference.vocabulary import SIZE

CHANNELS = 12
BATCH, RATE, SEED = 8, 2e-3, 11
PHASE = Phase(name="vae", steps=8000, rate=RATE, seed=SEED)
DECODER_PHASES = (
    Phase(name="decoder", steps=3000, rate=RATE, seed=SEED + 1),
    Phase(name="decoder_small", steps=3500, rate=RATE, seed=SEED + 2, mix=SMALL),
)
BLUR = 0.07
"""Noise, in standard deviations of a latent, that the finished decoder must tolerate."""
KL = 3e-4
"""Weight of the mean divergence of a latent number from a unit normal."""


def build_vae() -> AutoencoderKL:
    """Return an untrained autoencoder, f = 8, without attention."""
    blocks = 4
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
        shift_factor=0.0,
    )


def reconstruction_error(decoded_NCHW: torch.Tensor, image_NCHW: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute plus the mean squared error."""
    error_NCHW = decoded_NCHW - image_NCHW
    return error_NCHW.abs().mean() + error_NCHW.square().mean()


def vae_loss(vae: AutoencoderKL, image_NCHW: torch.Tensor, *, rng: torch.Generator) -> torch.Tensor:
    """Return the reconstruction's error plus the weighted divergence."""
    posterior = vae.encode(image_NCHW).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=rng)
    decoded_NCHW = vae.decode(posterior.mean + posterior.std * noise).sample
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    return reconstruction_error(decoded_NCHW, image_NCHW) + KL * kl


def random_images(
    sprites: torch.Tensor, *, batch: int, mix: Mix = BROAD, rng: torch.Generator
) -> torch.Tensor:
    """Return a random batch of training images in [-1, 1], half of them placed as for the
    denoisers."""
    scenes = [random_scene(mix, rng) for _ in range(batch)]
    fixed_K3 = torch.tensor(FIXED)
    placement_N3 = fixed_K3[torch.randint(len(FIXED), (batch,), generator=rng)]
    placement_N3[: batch // 2] = random_placements(batch // 2, rng=rng)
    return compose(sprites, scenes, placement_N3)


def train_vae(sprites: torch.Tensor, work: Path) -> AutoencoderKL:
    """Train the autoencoder, from its checkpoint `work`/vae.pt if there is one."""
    torch.manual_seed(SEED)
    vae = build_vae()

    def loss_of(rng: torch.Generator) -> torch.Tensor:
        return vae_loss(vae, random_images(sprites, batch=BATCH, rng=rng), rng=rng)

    loop.train(PHASE, vae, loss_of, work=work, batch=BATCH, decay=0.99)
    return vae.eval()


def decoder_loss(
    vae: AutoencoderKL, image_NCHW: torch.Tensor, *, blur: float, rng: torch.Generator
) -> torch.Tensor:
    """Return the error of decoding slightly noisy latents, such as a denoiser's."""
    with torch.no_grad():
        latent_NCHW = vae.encode(image_NCHW).latent_dist.mean
    noise_NCHW = torch.randn(latent_NCHW.shape, generator=rng)
    return reconstruction_error(vae.decode(latent_NCHW + blur * noise_NCHW).sample, image_NCHW)


@torch.no_grad()
def latent_deviation(vae: AutoencoderKL, sprites: torch.Tensor) -> float:
    """Return the standard deviation of the latents (not scaled) of 512 training images."""
    rng = torch.Generator().manual_seed(SEED)
    batches = [random_images(sprites, batch=64, rng=rng) for _ in range(8)]
    return float(torch.stack([vae.encode(b).latent_dist.mean for b in batches]).std())


def train_decoder(
    sprites: torch.Tensor,
    work: Path,
    *,
    vae: AutoencoderKL,
) -> AutoencoderKL:
    """Train only the decoder further, so that latents do not change; each phase continues from its
    checkpoint in `work`."""
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    blur = BLUR * latent_deviation(vae, sprites)

    for phase in DECODER_PHASES:

        def loss_of(rng: torch.Generator, mix: Mix = phase.mix) -> torch.Tensor:
            image_NCHW = random_images(sprites, batch=BATCH, mix=mix, rng=rng)
            return decoder_loss(vae, image_NCHW, blur=blur, rng=rng)

        loop.train(phase, vae, loss_of, work=work, batch=BATCH, decay=0.995)
    return vae.eval()
