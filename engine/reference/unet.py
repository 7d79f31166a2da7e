"""The denoiser: latents and caption embeddings made once, then a small UNet trained on them.

Shapes: N samples, C latent channels, H and W latent pixels, K placements, T tokens, D text width
(suffixes `_NCHW`, `_NTD`). Latents here are already multiplied by the VAE's scaling factor.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel, CLIPTokenizer

from engine.reference import loop
from engine.reference.captions import STYLE_LEFT_OUT, tokenize
from engine.reference.data import Pool, to_float
from engine.reference.text import WIDTH
from engine.reference.vocabulary import OPENINGS, caption

TRAIN_STEPS, BATCH, RATE, SEED = 6500, 64, 1e-3, 37
DECAY = 0.999
"""Of the averaged weights."""
EMPTY = 0.1
"""Share of captions left empty, for classifier-free guidance."""
NATURAL, UPRIGHT = 2.0, 2.0
"""How much more often a natural colour, or upright, is drawn than each other value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """What the denoiser trains on, per training combination and per caption of it."""

    latent_NKCHW: torch.Tensor
    caption_NV: torch.Tensor
    """Row of `text_PTD` for each of V wordings: with a style by opening, then without."""
    text_PTD: torch.Tensor
    """Embeddings of the distinct captions; the last is that of the empty one."""
    weight_N: torch.Tensor
    scale: float
    """Scaling factor of the VAE."""


def build_scheduler() -> DDIMScheduler:
    """DDIM on 1,000 linear-in-root steps that ends in pure noise, predicting v."""
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
    """An untrained UNet on 8 x 8 latents, two levels, cross-attention everywhere."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 128),
        layers_per_block=1,
        attention_head_dim=4,
        norm_num_groups=16,
        cross_attention_dim=WIDTH,
    )


@torch.no_grad()
def encode_pool(vae: AutoencoderKL, image_NKCHW: torch.Tensor) -> torch.Tensor:
    """Posterior means (not scaled) of all images."""
    means = [vae.encode(to_float(i_KCHW)).latent_dist.mean for i_KCHW in image_NKCHW]
    return torch.stack(means)


@torch.no_grad()
def embed(encoder: CLIPTextModel, ids_NT: torch.Tensor) -> torch.Tensor:
    """Last hidden states of the captions, as the pipeline computes them."""
    return torch.cat([encoder(input_ids=ids).last_hidden_state for ids in ids_NT.split(256)])


def prepare(
    pool: Pool, work: Path, *, vae: AutoencoderKL, encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> Latents:
    """Latents and embeddings of the training combinations, kept in `work`/latents_fixed.pt."""
    path = work / "latents_fixed.pt"
    kept = [pool.combos[int(i)] for i in pool.train]
    wordings = [
        [caption(c, opening=o, with_style=said) for said in (True, False) for o in OPENINGS]
        for c in kept
    ]
    texts = [*dict.fromkeys(text for row in wordings for text in row), ""]
    rows = {text: row for row, text in enumerate(texts)}
    state = loop.load(path)
    if not state:
        latent_NKCHW = encode_pool(vae, pool.image_NKCHW[pool.train])
        state = {
            "scale": 1 / float(latent_NKCHW.std()),
            "latent": latent_NKCHW / latent_NKCHW.std(),
            "text": embed(encoder, tokenize(tokenizer, texts)),
        }
        loop.save(path, state)
    weights = [
        (NATURAL if c.colour == "natural" else 1) * (UPRIGHT if c.viewpoint == "upright" else 1)
        for c in kept
    ]
    return Latents(
        latent_NKCHW=state["latent"],
        caption_NV=torch.tensor([[rows[text] for text in row] for row in wordings]),
        text_PTD=state["text"],
        weight_N=torch.tensor(weights),
        scale=state["scale"],
    )


def draw(data: Latents, batch: int, *, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A random batch: `latent_NCHW` and the embedding `text_NTD` of one wording each."""
    rows = torch.multinomial(data.weight_N, batch, replacement=True, generator=rng)
    copies = torch.randint(data.latent_NKCHW.shape[1], (batch,), generator=rng)
    opening = torch.randint(len(OPENINGS), (batch,), generator=rng)
    silent = torch.rand(batch, generator=rng) < STYLE_LEFT_OUT
    captions = data.caption_NV[rows, opening + silent * len(OPENINGS)]
    captions[torch.rand(batch, generator=rng) < EMPTY] = len(data.text_PTD) - 1
    return data.latent_NKCHW[rows, copies], data.text_PTD[captions]


def unet_loss(
    unet: UNet2DConditionModel,
    latent_NCHW: torch.Tensor,
    text_NTD: torch.Tensor,
    *,
    scheduler: DDIMScheduler,
    rng: torch.Generator,
) -> torch.Tensor:
    """Squared error of v = sqrt(a) noise - sqrt(1 - a) latent (Salimans & Ho 2022)."""
    count = len(latent_NCHW)
    # One time of each of N equal slices: the loss varies less than with independent times.
    place_N = (torch.arange(count) + torch.rand(count, generator=rng)) / count
    time_N = (place_N * scheduler.config["num_train_timesteps"]).long()
    noise_NCHW = torch.randn(latent_NCHW.shape, generator=rng)
    noisy_NCHW = scheduler.add_noise(latent_NCHW, noise_NCHW, time_N)
    target_NCHW = scheduler.get_velocity(latent_NCHW, noise_NCHW, time_N)
    guess_NCHW = unet(noisy_NCHW, time_N, encoder_hidden_states=text_NTD).sample
    return (guess_NCHW - target_NCHW).square().mean()


def build_optimizers(unet: UNet2DConditionModel) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for matrices and kernels between the first and the last layer, AdamW for the rest."""
    outer = ("conv_in.", "conv_out.", "time_embedding.")
    inner = {
        name: p for name, p in unet.named_parameters() if p.ndim > 1 and not name.startswith(outer)
    }
    rest = [p for name, p in unet.named_parameters() if name not in inner]
    adam = torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    return loop.Muon(list(inner.values())), adam


def train_unet(data: Latents, work: Path, *, steps: int = TRAIN_STEPS) -> UNet2DConditionModel:
    """Train (or go on training) the denoiser; its checkpoint is `work`/unet.pt."""
    torch.manual_seed(SEED)
    unet, scheduler = build_unet(), build_scheduler()
    # Fused attention is slow backwards on a CPU.
    unet.set_attn_processor(AttnProcessor())

    def loss_of(rng: torch.Generator) -> torch.Tensor:
        latent_NCHW, text_NTD = draw(data, BATCH, rng=rng)
        return unet_loss(unet, latent_NCHW, text_NTD, scheduler=scheduler, rng=rng)

    numbers = {"steps": steps, "batch": BATCH, "rate": RATE, "seed": SEED, "decay": DECAY}
    optimizers = build_optimizers(unet)
    loop.train("unet", unet, loss_of, work=work, warmup=200, optimizers=optimizers, **numbers)
    return unet.eval()


def trained_unet(work: Path) -> UNet2DConditionModel:
    """The denoiser with the averaged weights of its last checkpoint, however far it got."""
    unet = build_unet()
    unet.load_state_dict(loop.load(work / "unet.pt")["average"])
    return unet.eval()
