"""How far two sets of images are from each other as a whole: CMMD on a scorer's embeddings.

It is a squared maximum mean discrepancy (Gretton et al. 2012), 0 where the sets are alike:
    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y).

Shapes: R, S images of either set, D embedding width (suffixes `_RD`, `_SD`, `_RS`). float64.
"""

import torch

CMMD_SIGMA = 10.0
"""Bandwidth of CMMD's Gaussian kernel, for embeddings of length 1."""
CMMD_SCALE = 1000.0
"""Factor of CMMD's squared discrepancy."""
ROWS = 1024
"""Rows of a kernel matrix that are held at once."""


def cmmd(x_RD: torch.Tensor, y_SD: torch.Tensor) -> float:
    """Return CMMD of two sets of image embeddings of length 1, as `Scorer.embed_images` gives.

    1000 MMD^2 with k(x, y) = exp(-|x - y|^2 / (2 10^2)) (Jayasumana et al. 2024, "Rethinking FID",
    section 4). The biased estimate, as the authors' google-research/cmmd/distance.py: the means
    over one set include each image with itself. So it is 0 for equal sets and never below, and of
    two samples of one distribution about 10 (1 - c)(1/R + 1/S), c the mean cosine within a set.
    ValueError: a set is empty.
    """
    if not len(x_RD) or not len(y_SD):
        raise ValueError(f"a distance of {len(x_RD)} and {len(y_SD)} images needs some of each")
    x_RD, y_SD = x_RD.double(), y_SD.double()
    within = _gaussian_sum(x_RD, x_RD) / len(x_RD) ** 2 + _gaussian_sum(y_SD, y_SD) / (
        len(y_SD) ** 2
    )
    across = _gaussian_sum(x_RD, y_SD) / (len(x_RD) * len(y_SD))
    return CMMD_SCALE * (within - 2 * across)


def _gaussian(x_RD: torch.Tensor, y_SD: torch.Tensor) -> torch.Tensor:
    squared_RS = (x_RD**2).sum(1)[:, None] + (y_SD**2).sum(1) - 2 * x_RD @ y_SD.T
    return (-squared_RS / (2 * CMMD_SIGMA**2)).exp()


def _gaussian_sum(x_RD: torch.Tensor, y_SD: torch.Tensor) -> float:
    return float(sum(_gaussian(part_RD, y_SD).sum() for part_RD in x_RD.split(ROWS)))
