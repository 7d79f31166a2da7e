"""Causal mediation analysis: clean, corrupted and patched runs of one caption, in lockstep.

Basu et al. 2024, section 3 (after Meng et al. 2022): the corrupted run noises the subject's
embedding; a restored run is the corrupted one with the output of one component copied from the
clean run. Reference runs go first, and their latents before every step are kept: they are small. A
patched run forks from its base when its window opens, and while it is open the rows of its sources
run in the same batch, so that no activation is stored: any number of components, windows and steps
costs the memory of `rows` rows.

Shapes: R rows, L token positions, C channels, h x w latent, H x W pixels.
"""

from collections.abc import Callable, Iterator, Sequence

import torch

from engine.model.conditioning import Conditioning, joined
from engine.model.model import Diffusion
from engine.model.sampling import decode, sample
from engine.model.scorer import Scorer
from engine.tracing.interventions import (
    CLEAN,
    CORRUPTED,
    REFERENCE_LABELS,
    Patch,
    list_patches,
    reference_runs,
)
from engine.tracing.kept import ImageSelector
from engine.tracing.lockstep import run_patches, run_references
from engine.tracing.measures import Outcome, UnitScorer
from engine.tracing.text_runs import TextRow, distinct_rows, encode_rows
from schemas.component import Part
from schemas.errors import PlanError
from schemas.numerics import Numerics
from schemas.trial import Trial
from schemas.unit import Unit

TEXT_ROWS = 128
"""Rows of a text-encoder batch; they cost little compared with the denoiser's."""


@torch.inference_mode()
def trace_unit(
    model: Diffusion,
    scorer: Scorer,
    unit: Unit,
    *,
    numerics: Numerics,
    rows: int,
    measures: Sequence[str] = ("caption", "target"),
    selector: ImageSelector | None = None,
) -> list[Trial]:
    """Return the trials of a unit: every patched run by every measure.

    `rows` bounds the rows of a batch, including sources (the denoiser sees twice as many
    under guidance); no score depends on it, nor on `selector`, which gets every image.
    UnknownComponent, PlanError: a component, the subject, a source run or a measure is missing.
    NotFinite: a run ends in no numbers, as half precision and large noise can make it.
    """
    patches = list_patches(model, unit, numerics)
    runs = _runs(model, unit, patches, numerics, rows)
    reference, _ = next(runs)
    unit_scorer = UnitScorer(
        scorer=scorer,
        caption=unit.caption,
        clean=reference.take([CLEAN]),
        measures=measures,
        alternatives=unit.alternatives,
    )
    clean, corrupted = unit_scorer.measure(reference)
    if selector:
        selector.see_references(reference.images_RCHW, (clean, corrupted))
    path = numerics.path if model.family.has_pooled else "tokens"
    trials: list[Trial] = []
    for outcome, made in runs:
        measured = unit_scorer.measure(outcome)
        for patch, values in zip(made, measured, strict=True):
            trials += trials_of(patch, clean, corrupted, values, path=path)
        if selector:
            selector.see_patches(made, outcome.images_RCHW, measured)
    return trials


def trials_of(
    patch: Patch,
    clean: dict[str, float],
    corrupted: dict[str, float],
    patched: dict[str, float],
    *,
    path: str,
) -> Iterator[Trial]:
    """Yield the trial of every measure of a patched run."""
    for measure, value in patched.items():
        yield Trial(
            component=patch.component,
            intervention=patch.intervention,
            token=patch.token,
            position=patch.positions[0] if patch.positions else None,
            token_text=patch.token_text,
            step_start=patch.window[0],
            step_stop=patch.window[1],
            path=path,
            patch_kind=patch.patch_kind,
            measure=measure,
            clean=clean[measure],
            corrupted=corrupted[measure],
            patched=value,
        )


@torch.inference_mode()
def trace_images(
    model: Diffusion, unit: Unit, *, numerics: Numerics, rows: int
) -> tuple[torch.Tensor, dict[Patch, torch.Tensor]]:
    """Return the clean and the corrupted image, 2CHW, and the image CHW of every patched run."""
    patches = list_patches(model, unit, numerics)
    runs = _runs(model, unit, patches, numerics, rows)
    reference, _ = next(runs)
    images = {
        patch: image_CHW
        for outcome, made in runs
        for patch, image_CHW in zip(made, outcome.images_RCHW, strict=True)
    }
    return reference.images_RCHW, images


def _runs(
    model: Diffusion, unit: Unit, patches: Sequence[Patch], numerics: Numerics, rows: int
) -> Iterator[tuple[Outcome, Sequence[Patch]]]:
    """Yield the outcome of the clean and corrupted runs, then those of batches of patched runs."""
    for latents_RChw, made in final_latents(model, unit, patches, numerics, rows):
        runs = [patch.label for patch in made] or list(REFERENCE_LABELS)
        images_RCHW = decode(model, latents_RChw, runs=runs)
        yield Outcome(images_RCHW=images_RCHW, latents_RChw=latents_RChw), made


_Latents = Iterator[tuple[torch.Tensor, Sequence[Patch]]]
"""Final latents of the clean and corrupted runs, without a patch, then of batches of patches."""


def final_latents(
    model: Diffusion, unit: Unit, patches: Sequence[Patch], numerics: Numerics, rows: int
) -> _Latents:
    """Return the latents of the clean and corrupted runs, then those of batches of patches."""
    run = _denoiser_runs if unit.part is Part.DENOISER else _text_runs
    return run(model, unit, patches, numerics, rows)


def _text_runs(
    model: Diffusion, unit: Unit, patches: Sequence[Patch], numerics: Numerics, rows: int
) -> _Latents:
    """The text-encoder trace: patches in text batches, then sampling of the distinct
    conditionings."""
    runs = reference_runs(unit, numerics)
    references = [TextRow(run=run) for run in runs]
    cond = encode_rows(model, unit, references, numerics).take([CLEAN, CORRUPTED])
    seeds = [unit.seed] * max(2, rows, TEXT_ROWS)
    known_RChw = sample(model, cond, seeds=seeds[:2], numerics=numerics, rows=rows)
    yield known_RChw, ()
    for start in range(0, len(patches), TEXT_ROWS):
        made = patches[start : start + TEXT_ROWS]
        batch = [*references, *(TextRow(run=runs[c.base], patch=c) for c in made)]
        cond = encode_rows(model, unit, batch, numerics)
        distinct, place_of = distinct_rows(cond)
        rows_of = [distinct[place] for place in place_of[len(runs) :]]
        # A row may equal that of a source, which is not sampled yet.
        fresh = sorted({*rows_of} - {CLEAN, CORRUPTED})
        latents = {CLEAN: known_RChw[CLEAN], CORRUPTED: known_RChw[CORRUPTED]}
        if fresh:
            sampled = sample(
                model, cond.take(fresh), seeds=seeds[: len(fresh)], numerics=numerics, rows=rows
            )
            latents |= dict(zip(fresh, sampled, strict=True))
        yield torch.stack([latents[row] for row in rows_of]), made


def _denoiser_runs(
    model: Diffusion, unit: Unit, patches: Sequence[Patch], numerics: Numerics, rows: int
) -> _Latents:
    """The denoiser trace: the reference runs, then batches of patched runs that fork from them."""
    runs = reference_runs(unit, numerics)
    cond = encode_rows(model, unit, [TextRow(run=run) for run in runs], numerics)
    texts = _patched_texts(model, unit, patches, numerics)
    # Patches that open at once fill the batch of the references, where these are their sources.
    first = [c for c in patches if c.window[0] == 0][: max(0, rows - len(runs))]
    past, latents_RChw = run_references(
        model, runs, cond, patches=first, texts=texts(first), numerics=numerics
    )
    yield past.final[[CLEAN, CORRUPTED]], ()
    if first:
        yield latents_RChw, first
    taken = set(first)
    for made in _batches([patch for patch in patches if patch not in taken], rows):
        yield run_patches(model, past, made, numerics, texts=texts(made)), made


def _patched_texts(
    model: Diffusion, unit: Unit, patches: Sequence[Patch], numerics: Numerics
) -> Callable[[Sequence[Patch]], Conditioning | None]:
    """Return the function that gives the conditioning of some of the patches, a row each, or None
    if none of the unit's patches is of a text encoder too."""
    if not any(patch.of_text for patch in patches):
        return lambda _: None
    runs, parts = reference_runs(unit, numerics), []
    references = [TextRow(run=run) for run in runs]
    for start in range(0, len(patches), TEXT_ROWS):
        made = patches[start : start + TEXT_ROWS]
        batch = [*references, *(TextRow(run=runs[p.base], patch=p) for p in made)]
        cond = encode_rows(model, unit, batch, numerics)
        parts.append(cond.take(range(len(runs), len(cond))))
    every, row_of = joined(parts), {patch: row for row, patch in enumerate(patches)}
    return lambda taken: every.take([row_of[patch] for patch in taken])


def _batches(patches: Sequence[Patch], rows: int) -> Iterator[Sequence[Patch]]:
    """Yield batches of patches with the same sources, few and of nearly equal size.

    Patches with equal sources keep the order of their windows, so that those of a batch open at
    close steps.
    """
    groups: dict[tuple[int, ...], list[Patch]] = {}
    for patch in patches:
        groups.setdefault(patch.sources, []).append(patch)
    for sources, group in groups.items():
        free = rows - len(sources)
        if free < 1:
            raise PlanError(
                f"a batch of {rows} rows has no room for more than {len(sources)} sources: "
                "give more --rows or fewer references"
            )
        num_batches = -(-len(group) // free)
        for n in range(num_batches):
            start, stop = (len(group) * m // num_batches for m in (n, n + 1))
            yield group[start:stop]
