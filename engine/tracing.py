"""Causal mediation analysis: clean, corrupted and restored runs of one caption, in lockstep.

Basu et al. 2024, section 3 (after Meng et al. 2022): the corrupted run noises the subject's
embedding; a restored run is the corrupted one with the output of one component copied from the
clean run. Row 0 of every batch is the clean run; the others advance beside it, so the clean
activation is at hand at every step and none is stored: any number of components costs the memory
of `rows` rows.

Shapes: R rows, L token positions, D text width, C H W image. A row is described by the components
that it restores: none is the corrupted run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from engine.captions import Span, find_subject, tokenize
from engine.components import choose, list_components, module_of
from engine.corruption import embedding_sigma, noised_after_row_0, subject_noise, token_embedding
from engine.hooks import Edit, patched
from engine.models import Diffusion
from engine.sampling import decode, denoise, sample
from engine.scoring import Scorer
from schemas.component import Part
from schemas.plan import Numerics, Trial, Unit

Restores = Sequence[str]
"""Names of the components that one row restores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedImages:
    """The images of one unit's runs, each in [0, 1]."""

    clean_CHW: torch.Tensor
    corrupted_CHW: torch.Tensor
    restored_RCHW: torch.Tensor
    """In the order of the unit's components."""


def trace_unit(
    model: Diffusion, scorer: Scorer, unit: Unit, *, numerics: Numerics, rows: int
) -> list[Trial]:
    """Return the scores of every component of a unit, against its caption and its target.

    `rows` bounds the rows of a batch, the clean one included (the UNet sees twice as many under
    guidance); no score depends on it. UnknownComponent, PlanError: as `trace_images`.
    """
    images = trace_images(model, unit, numerics=numerics, rows=rows)
    texts = {"caption": unit.caption.caption, "target": unit.caption.target_text}
    stacked_RCHW = torch.cat(
        [images.clean_CHW[None], images.corrupted_CHW[None], images.restored_RCHW]
    )
    score_RT = scorer.score(stacked_RCHW, list(texts.values()))
    token = "all" if unit.part is Part.UNET else "last_subject"
    return [
        Trial(
            component=component,
            token=token,
            against=against,  # pyright: ignore
            clean=float(score_RT[0, t]),
            corrupted=float(score_RT[1, t]),
            restored=float(score_RT[2 + r, t]),
        )
        for r, component in enumerate(unit.components)
        for t, against in enumerate(texts)
    ]


@torch.inference_mode()
def trace_images(model: Diffusion, unit: Unit, *, numerics: Numerics, rows: int) -> TracedImages:
    """Return the images of the clean, corrupted and restored runs of a unit.

    UnknownComponent: the model lacks one. PlanError: the subject is not among the tokens.
    """
    choose(list_components(model), unit.components)
    restores = [(), *((name,) for name in unit.components)]
    images_RCHW = run_rows(model, unit, restores, numerics=numerics, rows=rows)
    return TracedImages(
        clean_CHW=images_RCHW[0], corrupted_CHW=images_RCHW[1], restored_RCHW=images_RCHW[2:]
    )


@torch.inference_mode()
def run_rows(
    model: Diffusion,
    unit: Unit,
    restores: Sequence[Restores],
    *,
    numerics: Numerics,
    rows: int,
) -> torch.Tensor:
    """Return images_RCHW: the clean run, then one corrupted run for each of `restores`."""
    if rows < 2:
        raise ValueError(f"rows is {rows}: a batch holds the clean row and at least one other")
    run = _unet_rows if unit.part is Part.UNET else _text_encoder_rows
    return run(model, unit, restores, numerics, rows)


def _unet_rows(
    model: Diffusion, unit: Unit, restores: Sequence[Restores], numerics: Numerics, rows: int
) -> torch.Tensor:
    """The UNet trace: batches [clean, corrupted or restored ...] through all timesteps."""
    clean_LD, corrupted_LD = _conditionings(model, unit, numerics)
    images: list[torch.Tensor] = []
    for start in range(0, len(restores), rows - 1):
        batch = restores[start : start + rows - 1]
        cond_RLD = torch.stack([clean_LD, *[corrupted_LD] * len(batch)])
        with patched(_unet_edits(model, batch, numerics)):
            latents = denoise(model, cond_RLD, seeds=[unit.seed] * len(cond_RLD), numerics=numerics)
        images_RCHW = decode(model, latents)
        images.append(images_RCHW if start == 0 else images_RCHW[1:])
    return torch.cat(images)


def _unet_edits(
    model: Diffusion, batch: Sequence[Restores], numerics: Numerics
) -> dict[nn.Module, Edit]:
    """Return the edit of each component: copy the clean row's output to the rows restoring it."""
    restoring: dict[str, list[int]] = {}
    for row, names in enumerate(batch, start=1):
        for name in names:
            restoring.setdefault(name, []).append(row)
    return {
        module_of(model, name): _copy_clean(rows, num_rows=len(batch) + 1, half=numerics.cfg_patch)
        for name, rows in restoring.items()
    }


def _copy_clean(rows: Sequence[int], *, num_rows: int, half: str) -> Edit:
    """Return the edit out[row] = out[clean row] in the conditional half, or in both halves."""

    def edit(out: torch.Tensor) -> torch.Tensor:
        halves = range(len(out) // num_rows)
        patched_out = out.clone()
        for n in halves if half == "both" else halves[-1:]:
            patched_out[[n * num_rows + row for row in rows]] = out[n * num_rows]
        return patched_out

    return edit


def _conditionings(
    model: Diffusion, unit: Unit, numerics: Numerics
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the clean and the corrupted conditioning, each LD."""
    span = find_subject(model.tokenizer, unit.caption)
    if numerics.noise_at == "input":
        clean_LD, corrupted_LD = _noised_encoding(model, unit, span, [()], numerics)
        return clean_LD, corrupted_LD
    ids_1L = tokenize(model.tokenizer, [unit.caption.caption]).to(model.device)
    clean_LD = model.text_encoder(ids_1L)[0][0]
    noise_LD = subject_noise(
        model,
        unit,
        span,
        noise_sigmas=numerics.noise_sigmas,
        length=len(clean_LD),
        sigma=float(clean_LD.float().std()),
    )
    return clean_LD, clean_LD + noise_LD.to(clean_LD.dtype)


def _noised_encoding(
    model: Diffusion, unit: Unit, span: Span, restores: Sequence[Restores], numerics: Numerics
) -> torch.Tensor:
    """Return the text encoder's output rows: clean, then noised at the input with restorations."""
    ids_1L = tokenize(model.tokenizer, [unit.caption.caption]).to(model.device)
    noise_LD = subject_noise(
        model,
        unit,
        span,
        noise_sigmas=numerics.noise_sigmas,
        length=ids_1L.shape[1],
        sigma=embedding_sigma(model),
    )
    edits: dict[nn.Module, Edit] = {token_embedding(model): noised_after_row_0(noise_LD)}
    for row, names in enumerate(restores, start=1):
        for name in names:
            module = module_of(model, name)
            edits[module] = _then(edits.get(module), _copy_clean_token(row, span.last))
    with patched(edits):
        return model.text_encoder(ids_1L.expand(len(restores) + 1, -1))[0]


def _copy_clean_token(row: int, position: int) -> Edit:
    """Return the edit h[row, position] = h[clean row, position]."""

    def edit(h_RLD: torch.Tensor) -> torch.Tensor:
        patched_RLD = h_RLD.clone()
        patched_RLD[row, position] = h_RLD[0, position]
        return patched_RLD

    return edit


def _then(first: Edit | None, second: Edit) -> Edit:
    return second if first is None else lambda h: second(first(h))


def _text_encoder_rows(
    model: Diffusion, unit: Unit, restores: Sequence[Restores], numerics: Numerics, rows: int
) -> torch.Tensor:
    """The text-encoder trace: all interventions in one text batch, then plain sampling."""
    span = find_subject(model.tokenizer, unit.caption)
    cond_RLD = _noised_encoding(model, unit, span, restores, numerics)
    distinct_ULD, row_of_R = torch.unique(cond_RLD, dim=0, return_inverse=True)
    seeds = [unit.seed] * len(distinct_ULD)
    images_UCHW = sample(model, distinct_ULD, seeds=seeds, numerics=numerics, rows=rows)
    return images_UCHW[row_of_R.cpu()]
