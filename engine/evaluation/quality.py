"""How far two sets of images are from each other as a whole: CMMD and KID on a scorer's embeddings.

Both are a squared maximum mean discrepancy (Gretton et al. 2012), 0 where the sets are alike:
    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y).

Shapes: R, S images of either set, D embedding width (suffixes `_RD`, `_SD`, `_RS`). float64.
"""

from collections.abc import Callable

import torch

CMMD_SIGMA = 10.0
"""Bandwidth of CMMD's Gaussian kernel, for embeddings of length 1."""
CMMD_SCALE = 1000.0
"""What CMMD multiplies its squared discrepancy by."""
ROWS = 1024
"""Rows of a kernel matrix that are held at once."""

Kernel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Returns the kernel of every pair of rows."""


def cmmd(x_RD: torch.Tensor, y_SD: torch.Tensor) -> float:
    """Return CMMD of two sets of image embeddings of length 1, as `Scorer.embed_images` gives.

    1000 MMD^2 with k(x, y) = exp(-|x - y|^2 / (2 10^2)) (Jayasumana et al. 2024, "Rethinking FID",
    section 4). The biased estimate, as the authors' google-research/cmmd/distance.py: the means
    over one set include each image with itself. So it is 0 for equal sets and never below, and of
    two samples of one distribution about 10 (1 - c)(1/R + 1/S), c the mean cosine within a set.
    ValueError: a set is empty.
    """
    _check(x_RD, y_SD, least=1)
    x_RD, y_SD = x_RD.double(), y_SD.double()
    within = _sum(_gaussian, x_RD, x_RD) / len(x_RD) ** 2 + _sum(_gaussian, y_SD, y_SD) / (
        len(y_SD) ** 2
    )
    across = _sum(_gaussian, x_RD, y_SD) / (len(x_RD) * len(y_SD))
    return CMMD_SCALE * (within - 2 * across)


def kid(x_RD: torch.Tensor, y_SD: torch.Tensor) -> float:
    """Return KID of two sets of image embeddings of length 1; below 0 by chance for like sets.

    MMD^2 with k(x, y) = (f.g / D + 1)^3 (Binkowski et al. 2018, "Demystifying MMD GANs", section
    4), the unbiased estimate over whole sets, not times 1000. The features are f = sqrt(D) x, whose
    entries have mean square 1: at length 1 the kernel would be all but linear. They are the
    scorer's rather than Inception's, so values compare with one another, not with published ones.
    ValueError: a set has fewer than two images.
    """
    _check(x_RD, y_SD, least=2)
    x_RD, y_SD = x_RD.double(), y_SD.double()
    within = _unlike_mean(_cubic, x_RD) + _unlike_mean(_cubic, y_SD)
    return within - 2 * _sum(_cubic, x_RD, y_SD) / (len(x_RD) * len(y_SD))


def _check(x_RD: torch.Tensor, y_SD: torch.Tensor, *, least: int) -> None:
    if min(len(x_RD), len(y_SD)) < least:
        raise ValueError(
            f"a distance of {len(x_RD)} and {len(y_SD)} images needs {least} or more of each"
        )


def _gaussian(x_RD: torch.Tensor, y_SD: torch.Tensor) -> torch.Tensor:
    squared_RS = (x_RD**2).sum(1)[:, None] + (y_SD**2).sum(1) - 2 * x_RD @ y_SD.T
    return (-squared_RS / (2 * CMMD_SIGMA**2)).exp()


def _cubic(x_RD: torch.Tensor, y_SD: torch.Tensor) -> torch.Tensor:
    return (x_RD @ y_SD.T + 1) ** 3


def _sum(kernel: Kernel, x_RD: torch.Tensor, y_SD: torch.Tensor) -> float:
    return float(sum(kernel(part_RD, y_SD).sum() for part_RD in x_RD.split(ROWS)))


def _unlike_mean(kernel: Kernel, x_RD: torch.Tensor) -> float:
    """Return the kernel's mean over ordered pairs of different rows."""
    itself = sum(float(kernel(row_D[None], row_D[None])) for row_D in x_RD)
    return (_sum(kernel, x_RD, x_RD) - itself) / (len(x_RD) * (len(x_RD) - 1))
