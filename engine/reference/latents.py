"""The denoisers' training data: latents of training scenes, made once, and their captions.

Shapes: N samples, M latents, C latent channels, H and W latent pixels (suffix `_NCHW`). Latents
here are already multiplied by the VAE's scaling factor.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from engine.reference import loop
from engine.reference.sampling import NATURAL, UPRIGHT, Mix, objects_of, variation
from engine.reference.scenes import FIXED, compose
from engine.reference.vae import latent_deviation
from engine.reference.vocabulary import Scene, scenes
from engine.reference.wordings import random_wording

PAIRS, SEED = 24_000, 41
"""Scenes of two objects: a fixed sample, as there are a million."""
EMPTY = 0.1
"""Share of captions left empty, for classifier-free guidance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """The latents of training scenes."""

    scenes: list[Scene]
    latent_MCHW: torch.Tensor
    owner_M: torch.Tensor
    """Row in `scenes` of each latent: scenes of one object alone have one for each placement."""
    scale: float
    """Scaling factor of the VAE."""


def kind_of(scene: Scene) -> str:
    """Return which of a mix's kinds a scene is."""
    if scene.second:
        return "pair"
    return "single" if scene.count == "one" else "counted"


def training_scenes() -> list[Scene]:
    """Return every scene of one object that is not held out, and a fixed sample of two objects."""
    rng = torch.Generator().manual_seed(SEED)
    pairs = [variation("pair", *objects_of("pair", rng), rng) for _ in range(PAIRS)]
    return [*(scene for scene in scenes() if not scene.held_out), *dict.fromkeys(pairs)]


def scene_weight(scene: Scene) -> float:
    """Return a scene's weight in sampling, compared with others of its kind."""
    if scene.second:
        return 1.0
    natural = NATURAL if scene.color == "natural" else 1.0
    # A person is one object with many actions; each of these is sampled as often as another object.
    return natural * (UPRIGHT if scene.viewpoint == "upright" else 1.0)


def entry_weights(data: Latents, mix: Mix) -> torch.Tensor:
    """Return the weight of each latent in sampling, those of a kind adding up to its share."""
    kinds = [kind_of(data.scenes[int(row)]) for row in data.owner_M]
    weight_M = torch.tensor([scene_weight(data.scenes[int(row)]) for row in data.owner_M])
    for kind, share in mix.kinds.items():
        mask_M = torch.tensor([k == kind for k in kinds])
        weight_M[mask_M] *= share / weight_M[mask_M].sum()
    return weight_M


@torch.no_grad()
def encode_scenes(
    vae: AutoencoderKL, sprites: torch.Tensor, listed: list[Scene], owner_M: torch.Tensor
) -> torch.Tensor:
    """Return posterior means (not scaled), a lone object's in each placement of FIXED in turn."""
    fixed_K3 = torch.tensor(FIXED)
    copies: dict[int, int] = {}
    placements = []
    for row in owner_M.tolist():
        placements.append(fixed_K3[copies.get(row, 0)])
        copies[row] = copies.get(row, 0) + 1
    means = []
    for start in range(0, len(owner_M), 64):
        rows = owner_M[start : start + 64].tolist()
        image_NCHW = compose(
            sprites, [listed[row] for row in rows], torch.stack(placements[start : start + 64])
        )
        means.append(vae.encode(image_NCHW).latent_dist.mean)
    return torch.cat(means)


def prepare(vae: AutoencoderKL, sprites: torch.Tensor, work: Path) -> Latents:
    """Return the latents of the training scenes, kept in `work`/latents.pt."""
    listed = training_scenes()
    repeats = [len(FIXED) if kind_of(scene) == "single" else 1 for scene in listed]
    owner_M = torch.arange(len(listed)).repeat_interleave(torch.tensor(repeats))
    path = work / "latents.pt"
    state = loop.load(path)
    if not state:
        scale = 1 / latent_deviation(vae, sprites)
        latent_MCHW = scale * encode_scenes(vae, sprites, listed, owner_M)
        state = {"scale": scale, "latent": latent_MCHW}
        loop.save(path, state)
    return Latents(
        scenes=listed, latent_MCHW=state["latent"], owner_M=owner_M, scale=state["scale"]
    )


def draw(
    data: Latents, weight_M: torch.Tensor, batch: int, *, rng: torch.Generator
) -> tuple[torch.Tensor, list[str]]:
    """Return a random batch: `latent_NCHW` and a wording of each, some of them empty."""
    rows = torch.multinomial(weight_M, batch, replacement=True, generator=rng)
    texts = [random_wording(data.scenes[i], rng).text for i in data.owner_M[rows].tolist()]
    empty = (torch.rand(batch, generator=rng) < EMPTY).tolist()
    captions = ["" if out else text for text, out in zip(texts, empty, strict=True)]
    return data.latent_MCHW[rows], captions


def stratified(count: int, *, rng: torch.Generator) -> torch.Tensor:
    """Return one number of each of `count` equal slices of [0, 1), `(count,)`.

    A loss over times drawn so varies less than over independent ones.
    """
    return (torch.arange(count) + torch.rand(count, generator=rng)) / count
