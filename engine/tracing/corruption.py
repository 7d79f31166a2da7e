"""The corrupted run: Gaussian noise on the embeddings of the subject's tokens.

Shapes: R rows, L token positions, D embedding width (suffixes `_RLD`, `_LD`).
"""

from collections.abc import Mapping

import torch

from engine.model.hooks import Edit
from engine.model.seeds import derived_seed
from engine.model.tokens import Span
from schemas.errors import PlanError
from schemas.numerics import Numerics
from schemas.unit import Unit


def noise_draw(unit: Unit, shape: tuple[int, ...], stream: str = "") -> torch.Tensor:
    """Return standard normal noise, which depends on the caption, subject, seed and draw only.

    Draws of another `stream` are independent, as for the second text encoder.
    """
    caption = unit.caption
    purpose = f"subject noise{stream}"
    seed = derived_seed(purpose, caption.caption, caption.subject, unit.seed, unit.draw)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def noise_scale(numerics: Numerics, sigma: float) -> float:
    """Return the standard deviation of the noise on embeddings whose own is `sigma`.

    PlanError: the settings have several, of which a run has one.
    """
    if numerics.noise_absolute is not None:
        return numerics.noise_absolute
    if isinstance(numerics.noise_sigmas, tuple):
        listed = ", ".join(f"{noise:g}" for noise in numerics.noise_sigmas)
        raise PlanError(f"noise_sigmas is {listed}: give one, as only a plan may have several")
    return numerics.noise_sigmas * sigma


def subject_noise(
    unit: Unit, span: Span, *, shape: tuple[int, int], scale: float, stream: str = ""
) -> torch.Tensor:
    """Return noise_LD of standard deviation `scale` on the subject, zero elsewhere."""
    length, width = shape
    noise_LD = torch.zeros(length, width)
    positions = list(span.subject)
    noise_LD[positions] = scale * noise_draw(unit, (len(positions), width), stream)
    return noise_LD


def noising(noises: Mapping[int, torch.Tensor]) -> Edit:
    """Return the edit that adds a noise_LD (or noise_P) to each of the given rows."""

    def edit(h_RLD: torch.Tensor) -> torch.Tensor:
        noised_RLD = h_RLD.clone()
        for row, noise_LD in noises.items():
            noised_RLD[row] += noise_LD.to(h_RLD)
        return noised_RLD

    return edit
