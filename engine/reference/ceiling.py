"""The accuracy of a perfect denoiser: drawings through the autoencoder, judged by the scorer."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from open_clip.model import CLIP

from engine.reference.judge import Judge, answers, share, to_images
from engine.reference.prompt_sets import held_out_scenes
from engine.reference.scenes import FIXED, compose, random_placements, to_pixels
from engine.reference.scorer import export_scorer
from engine.reference.vocabulary import Scene

LEAST = 0.97
"""Share of decoded drawings whose object the scorer must recognize before a denoiser is trained."""
SEED = 53


def rendered(sprites: torch.Tensor, asked: Sequence[Scene]) -> torch.Tensor:
    """Return the scenes' drawings in [-1, 1], placed at random as in the scorer's training."""
    rng = torch.Generator().manual_seed(SEED)
    return compose(sprites, asked, random_placements(len(asked), rng=rng))


@torch.no_grad()
def decoded(vae: AutoencoderKL, sprites: torch.Tensor, asked: Sequence[Scene]) -> torch.Tensor:
    """Return the drawings, placed as denoised, encoded and decoded again, in [-1, 1]."""
    image_NCHW = compose(sprites, asked, torch.tensor(FIXED[:1]).expand(len(asked), -1))
    parts = [vae.decode(vae.encode(p).latent_dist.mean).sample for p in image_NCHW.split(32)]
    return torch.cat(parts)


def check_ceiling(scorer: CLIP, vae: AutoencoderKL, sprites: torch.Tensor, *, folder: Path) -> None:
    """Print the scorer's accuracy on rendered and on decoded held-out drawings.

    RuntimeError: the scorer recognizes the object in less than LEAST of the decoded drawings. It is
    written to `folder` and read from there, as users read it.
    """
    export_scorer(scorer, folder)
    judge, asked = Judge(folder), held_out_scenes(600)
    images = {"rendered": rendered(sprites, asked), "decoded": decoded(vae, sprites, asked)}
    found = {name: answers(judge, to_images(to_pixels(i)), asked) for name, i in images.items()}
    for name, right in found.items():
        print(name, {q: round(share(r), 3) for q, r in right.items()}, file=sys.stderr, flush=True)
    if (reached := share(found["decoded"]["object"])) < LEAST:
        raise RuntimeError(f"the scorer knows the object of {reached:.3f} decoded drawings only")
