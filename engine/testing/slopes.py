"""Slopes of a linear function of the final latent, compared with patched runs.

Shapes: P patches, R rows, C channels, h x w latent.
"""

from typing import NamedTuple

import torch

from engine.model.model import Diffusion
from engine.tracing.interventions import CORRUPTED, list_patches, reference_runs
from engine.tracing.lockstep import run_references
from engine.tracing.screening import denoiser_effects, sources_of, spots_of, text_effects
from engine.tracing.slopes import Sweep
from engine.tracing.text_runs import TextRow, encode_rows
from engine.tracing.trace_unit import final_latents
from schemas.component import Part
from schemas.numerics import Numerics
from schemas.screen import Screen
from schemas.unit import Unit

ROWS = 64


class Effects(NamedTuple):
    """Effects of the patches of a unit, in order."""

    estimated_P: torch.Tensor
    exact_P: torch.Tensor


@torch.no_grad()
def linear_effects(model: Diffusion, unit: Unit, numerics: Numerics) -> Effects:
    """Return the effects of a unit's restored patches, each of one activation."""
    is_denoiser = unit.part is Part.DENOISER
    patches = [patch for patch in list_patches(model, unit, numerics) if len(patch.sites) == 1]
    runs = reference_runs(unit, numerics)
    cond = encode_rows(model, unit, [TextRow(run=run) for run in runs], numerics)
    past, _ = run_references(model, runs, cond, numerics=numerics)
    base_1Chw = past.final[[CORRUPTED]]
    weights = torch.randn(base_1Chw.shape, generator=torch.Generator().manual_seed(0))
    sweep = Sweep(
        model=model,
        numerics=numerics,
        estimate=Screen.ATTRIBUTION,
        past=past,
        base=CORRUPTED,
        sources=sources_of(patches) if is_denoiser else (),
        spots=spots_of(patches) if is_denoiser else (),
    )
    if is_denoiser:
        estimated_PM = denoiser_effects(sweep, patches, [weights])
    else:
        estimated_PM = text_effects(sweep, unit, runs, patches, [weights])
    exact = [
        ((latents_RChw - base_1Chw).double() * weights).sum(dim=(1, 2, 3))
        for latents_RChw, made in final_latents(model, unit, patches, numerics, ROWS)
        if made
    ]
    return Effects(estimated_PM[:, 0].double(), torch.cat(exact))
