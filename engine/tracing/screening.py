"""Screening: the effects of all patched runs of a unit to first order, by one gradient pass.

Attribution patching (Nanda 2023): a patched run's score is that of its base, plus, over the steps
of its window, <a_source - a_base, dm / da_base>, with the activation a of its component in both
runs. One pass from the score through scorer, VAE and sampler gives dm / da of every component at
every step. It ranks; it does not replace exact runs (docs/screening.md).

Of one activation at one step this is right to first order. A window is the sum of its steps, though
what an early step changes reaches the later ones, which are patched as well. Where a patch writes
several activations, one of which is computed from another, such a sum is far off (3.5 times the
contribution of a text encoder's first layer): these patches have no estimate.

Shapes: R rows, L token positions, D text width, P patches, M measures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from engine.model.finite import refuse_not_finite
from engine.model.hooks import ActivationCopy, HookPoint, differentiated, first_order
from engine.model.model import Diffusion
from engine.model.sampling import decode
from engine.model.scorer import Scorer
from engine.tracing.interventions import (
    CLEAN,
    CORRUPTED,
    REFERENCE_LABELS,
    Patch,
    Reference,
    list_patches,
    reference_runs,
    source_places,
)
from engine.tracing.lockstep import Trajectories, run_references
from engine.tracing.measures import FLAT_AT_CLEAN, Outcome, UnitScorer
from engine.tracing.slopes import Activation, Sweep, activations_of, rules_of, summed_text
from engine.tracing.text_runs import TextRow, encode_rows
from engine.tracing.trace_unit import trials_of
from schemas.component import Part
from schemas.errors import PlanError
from schemas.intervention import Intervention
from schemas.numerics import Numerics
from schemas.screen import Screen
from schemas.trial import Trial
from schemas.unit import Unit


@torch.no_grad()
def screen_unit(
    model: Diffusion,
    scorer: Scorer,
    unit: Unit,
    *,
    numerics: Numerics,
    estimate: Screen = Screen.ATTRIBUTION,
    measures: Sequence[str] = ("caption", "target"),
) -> list[Trial]:
    """Return the trials that `trace_unit` would, each with the estimate of its patched score.

    Patches of several activations together have none.

    UnknownComponent, PlanError, NotFinite: as `trace_unit`; PlanError too where a measure has no
    slope at the base run of an intervention.
    """
    patches = [patch for patch in list_patches(model, unit, numerics) if len(patch.sites) == 1]
    check_slopes(unit.interventions, measures)
    screen = _screen(model, scorer, unit, numerics, estimate, measures)
    path = numerics.path if model.family.has_pooled else "tokens"
    trials: list[Trial] = []
    clean, corrupted = screen.scores
    for base in sorted({patch.base for patch in patches}):
        of_base = [patch for patch in patches if patch.base == base]
        effects_PM = screen.effects(base, of_base)
        refuse_not_finite(
            effects_PM,
            runs=[patch.label for patch in of_base],
            network="the backward pass",
            dtype=model.dtype,
        )
        for patch, effects in zip(of_base, effects_PM.tolist(), strict=True):
            own = screen.scores[base]
            patched = {name: own[name] + e for name, e in zip(measures, effects, strict=True)}
            made = trials_of(patch, clean, corrupted, patched, path=path)
            trials += [replace(trial, estimate=estimate) for trial in made]
    return trials


def check_slopes(interventions: Sequence[Intervention], measures: Sequence[str]) -> None:
    """Raise PlanError if a measure is compared with the clean run and an intervention changes it:
    to first order no change of the clean run has an effect."""
    from_clean = [i for i in interventions if not i.changes_corrupted]
    flat = [name for name in measures if name in FLAT_AT_CLEAN]
    if from_clean and flat:
        raise PlanError(
            f"measure {flat[0]} has no slope at the clean run, which intervention {from_clean[0]} "
            "changes: a screen needs another measure, such as target"
        )


def screen_evaluations(
    unit: Unit, numerics: Numerics, *, steps: int, is_guided: bool, num_measures: int
) -> float:
    """Return the row evaluations of a unit's screen, of which a backward pass counts two.

    The reference runs are sampled; then each step of a base run is evaluated again, together with
    its source rows, and each measure takes a backward pass through it.
    """
    runs = reference_runs(unit, numerics)
    # Sources whose unconditional half is not copied are evaluated without it.
    of_source = 0.5 if is_guided and numerics.cfg_patch == "cond" else 1.0
    is_denoiser, evaluations = unit.part is Part.DENOISER, 0.0
    for changes_corrupted in {i.changes_corrupted for i in unit.interventions}:
        of_base = [i for i in unit.interventions if i.changes_corrupted is changes_corrupted]
        sources = {s for i in of_base for s in source_places(unit, i, runs, numerics)}
        evaluations += 1 + 2 * num_measures + of_source * len(sources) * is_denoiser
    return steps * (evaluations + (len(runs) if is_denoiser else 2))


def _screen(
    model: Diffusion,
    scorer: Scorer,
    unit: Unit,
    numerics: Numerics,
    estimate: Screen,
    measures: Sequence[str],
) -> "_Screen":
    """Return the unit's screen, after its reference runs."""
    runs = reference_runs(unit, numerics)
    cond = encode_rows(model, unit, [TextRow(run=run) for run in runs], numerics)
    if unit.part is Part.TEXT_ENCODER:  # the other sources are rows of its text batch alone
        past, _ = run_references(model, runs[:2], cond.take([CLEAN, CORRUPTED]), numerics=numerics)
    else:
        past, _ = run_references(model, runs, cond, numerics=numerics)
    latents_RChw = past.final[[CLEAN, CORRUPTED]]
    images_RCHW = decode(model, latents_RChw, runs=REFERENCE_LABELS)
    reference = Outcome(images_RCHW=images_RCHW, latents_RChw=latents_RChw)
    unit_scorer = UnitScorer(
        scorer=scorer,
        caption=unit.caption,
        clean=reference.take([CLEAN]),
        measures=measures,
        alternatives=unit.alternatives,
    )
    return _Screen(
        model=model,
        unit=unit,
        numerics=numerics,
        estimate=estimate,
        runs=runs,
        past=past,
        unit_scorer=unit_scorer,
        scores=unit_scorer.measure(reference),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Screen:
    """The reference runs of a unit, from which its patched runs are estimated."""

    model: Diffusion
    unit: Unit
    numerics: Numerics
    estimate: Screen
    runs: Sequence[Reference]
    past: Trajectories
    unit_scorer: UnitScorer
    scores: Sequence[dict[str, float]]
    """Scores of the clean and the corrupted run, by measure."""

    def effects(self, base: int, patches: Sequence[Patch]) -> torch.Tensor:
        """Return effects_PM of patches of one base run: patched less base."""
        is_denoiser = self.unit.part is Part.DENOISER
        sweep = Sweep(
            model=self.model,
            numerics=self.numerics,
            estimate=self.estimate,
            past=self.past,
            base=base,
            sources=sources_of(patches) if is_denoiser else (),
            spots=spots_of(patches) if is_denoiser else (),
        )
        slopes_M = self._final_slopes(self.past.final[[base]])
        if is_denoiser:
            return denoiser_effects(sweep, patches, slopes_M)
        return text_effects(sweep, self.unit, self.runs, patches, slopes_M)

    def _final_slopes(self, latent_1Chw: torch.Tensor) -> list[torch.Tensor]:
        """Return the gradient of every measure with respect to the final latent.

        The scorer is not a part of the model: it keeps its derivative under any estimate.
        """
        with torch.enable_grad():
            x_1Chw = latent_1Chw.detach().clone().requires_grad_()
            with rules_of(self.estimate):
                images_1CHW = self.model.family.decode(self.model, x_1Chw)
            outcome = Outcome(images_RCHW=images_1CHW.cpu(), latents_RChw=x_1Chw)
            values = self.unit_scorer.values(outcome)
        return list(
            torch.cat(torch.autograd.grad(value, x_1Chw, retain_graph=True))
            for value in values.values()
        )


def denoiser_effects(
    sweep: Sweep, patches: Sequence[Patch], slopes_M: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return effects_PM of patches of the denoiser, summed over the steps of their windows.

    `slopes_M` are those of the final latent_1Chw of the sweep's base run.
    """
    effects_PM = torch.zeros(len(patches), len(slopes_M))
    for found in sweep.steps(slopes_M):
        for n, patch in enumerate(patches):
            for part in patch.open_at(found.step):
                copies = sweep.copies(part.sources)
                effects_PM[n] += _effect(part, found.activations, copies, cells=sweep.cells)
    return effects_PM


def text_effects(
    sweep: Sweep,
    unit: Unit,
    runs: Sequence[Reference],
    patches: Sequence[Patch],
    slopes_M: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Return effects_PM of patches of text encoders, whose runs are the rows of one batch."""
    slopes_of_text = summed_text(sweep, slopes_M)
    spots, rows = spots_of(patches), [TextRow(run=run) for run in runs]
    with torch.enable_grad(), rules_of(sweep.estimate), differentiated(spots) as passed:
        cond = encode_rows(sweep.model, unit, rows, sweep.numerics)
    outputs = [h for h in (cond.text_RLD, cond.pooled_RP) if h is not None]
    of_outputs = [
        [_in_row(sweep.base, slope, h) for h, slope in zip(outputs, slopes, strict=True)]
        for slopes in slopes_of_text
    ]
    activations = activations_of(passed, outputs, of_outputs)
    effects = [
        _effect(patch, activations, [(sweep.base, patch.sources)], cells=sweep.cells)
        for patch in patches
    ]
    return torch.stack(effects)


def sources_of(patches: Sequence[Patch]) -> list[int]:
    """Return the source runs of patches, in order."""
    return sorted({source for patch in patches for source in patch.sources})


def spots_of(patches: Sequence[Patch]) -> list[HookPoint]:
    """Return the hook points of patches, each once."""
    return list(dict.fromkeys(site.spot for patch in patches for site in patch.sites))


def _in_row(row: int, slope: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | None:
    """Return the slope of one row as that of all rows, of which the others have none."""
    if slope is None:
        return None
    filled = torch.zeros_like(like)
    filled[row] = slope[0]
    return filled


def _effect(
    patch: Patch,
    activations: Mapping[HookPoint, Sequence[Activation]],
    copies: Sequence[tuple[int, tuple[int, ...]]],
    *,
    cells: int,
) -> torch.Tensor:
    """Return the effect_M of a patch whose sites are copied, into each row from its sources, at a
    latent of `cells`."""
    parts = [
        first_order(
            ActivationCopy(
                row=row,
                sources=sources,
                positions=patch.positions or site.span(cells),
                channels=site.channels,
            ),
            activation.h,
            sources_h=activation.sources_h,
            slopes=activation.slopes,
        ).cpu()
        for site in patch.sites
        for activation in activations[site.spot]
        for row, sources in copies
    ]
    return torch.stack(parts).sum(0)
