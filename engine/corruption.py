"""The corrupted run: Gaussian noise on the embeddings of the subject's tokens.

Shapes: R rows, L token positions, D embedding width (suffixes `_RLD`, `_LD`).
"""

import hashlib

import torch
from torch import nn

from engine.captions import Span
from engine.hooks import Edit
from engine.models import Diffusion
from schemas.plan import Unit


def embedding_sigma(model: Diffusion) -> float:
    """Return the standard deviation of all entries of the token embedding table."""
    return float(token_embedding(model).weight.float().std())


def token_embedding(model: Diffusion) -> nn.Embedding:
    """Return the text encoder's token embedding."""
    return model.text_encoder.get_input_embeddings()  # pyright: ignore


def noise_draw(unit: Unit, shape: tuple[int, ...]) -> torch.Tensor:
    """Return standard normal noise, the same for every unit of one caption, subject, seed, draw."""
    caption = unit.caption
    name = f"subject noise/{caption.caption}/{caption.subject}/{unit.seed}/{unit.draw}"
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def subject_noise(
    model: Diffusion, unit: Unit, span: Span, *, noise_sigmas: float, length: int, sigma: float
) -> torch.Tensor:
    """Return noise_LD of standard deviation `noise_sigmas * sigma`, zero off the subject."""
    width = token_embedding(model).embedding_dim
    noise_LD = torch.zeros(length, width)
    draw_SD = noise_draw(unit, (span.stop - span.start, width))
    noise_LD[span.start : span.stop] = noise_sigmas * sigma * draw_SD
    return noise_LD.to(model.device)


def noised_after_row_0(noise_LD: torch.Tensor) -> Edit:
    """Return the edit that adds the noise to every row but the clean one, row 0."""

    def edit(h_RLD: torch.Tensor) -> torch.Tensor:
        noised_RLD = h_RLD + noise_LD.to(h_RLD.dtype)
        return torch.cat([h_RLD[:1], noised_RLD[1:]])

    return edit
