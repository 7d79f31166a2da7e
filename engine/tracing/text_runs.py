"""Text-encoder runs as rows of one batch: references, noised or not, and patched rows in the same
batch.

Shapes: R rows, L token positions, D text width, P pooled width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from engine.model.conditioning import Conditioning, TextPlace
from engine.model.hooks import ActivationCopy, Edit, HookPoint, copy_rows, patched
from engine.model.model import Diffusion, embedding_sigma, token_embedding
from engine.model.sampling import check_conditioning
from engine.model.tokens import find_subject
from engine.tracing.corruption import noise_draw, noise_scale, noising, subject_noise
from engine.tracing.interventions import CLEAN, CORRUPTED, Patch, Reference
from schemas.component import Part
from schemas.numerics import Numerics
from schemas.unit import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRow:
    """One row of a text-encoder batch."""

    run: Reference
    patch: Patch | None = None
    """The sources of the patch are rows of the same batch."""

    @property
    def label(self) -> str:
        """Name of the row's run in messages."""
        if self.patch is not None:
            return self.patch.label
        kind = "corrupted" if self.run.is_noised else "clean"
        return f"the {kind} run of {self.run.text!r}"


def encode_rows(
    model: Diffusion, unit: Unit, rows: Sequence[TextRow], numerics: Numerics
) -> Conditioning:
    """Return the conditioning of rows; row 0 is the clean run.

    Gaussian noise is added to the noised rows at the encoders' input or at their output.
    """
    ids = model.token_ids([row.run.text for row in rows])
    noised = {n: row.run.noise_stream for n, row in enumerate(rows) if row.run.is_noised}
    at_input = numerics.noise_at == "input" or unit.part is Part.TEXT_ENCODER
    edits = _writes(rows)
    if noised and at_input:
        for spot, edit in _input_noise(model, unit, noised, numerics).items():
            edits[spot] = edit
    with patched(edits):
        cond = model.family.encode(model, ids)
    if noised and not at_input:
        cond = _output_noise(model, unit, cond, noised, numerics)
    cond = _confined(cond, rows, numerics.path)
    check_conditioning(model, cond, runs=[row.label for row in rows])
    return cond


def _confined(cond: Conditioning, rows: Sequence[TextRow], path: str) -> Conditioning:
    """Return the conditioning with the clean run's text rows or pooled embedding where a run
    changes the other alone.

    The runs of other captions, whose activations are sources, keep both.
    """
    if cond.pooled_RP is None or path == "both":
        return cond
    corrupted = rows[CORRUPTED].run if len(rows) > CORRUPTED else None
    confined = [
        n
        for n, row in enumerate(rows)
        if row.patch is not None or row.run.is_noised or row.run == corrupted
    ]
    kept = (cond.pooled_RP if path == "tokens" else cond.text_RLD).clone()
    kept[confined] = kept[CLEAN].clone()
    return replace(cond, **{"pooled_RP" if path == "tokens" else "text_RLD": kept})


def _writes(rows: Sequence[TextRow]) -> dict[HookPoint, Edit]:
    writes: dict[HookPoint, list[ActivationCopy]] = {}
    for n, row in enumerate(rows):
        for patch in row.patch.of_text if row.patch else ():
            for site in patch.sites:
                write = ActivationCopy(
                    row=n,
                    sources=patch.sources,
                    positions=patch.positions,
                    channels=site.channels,
                )
                writes.setdefault(site.spot, []).append(write)
    return {spot: copy_rows(spot_writes) for spot, spot_writes in writes.items()}


def _input_noise(
    model: Diffusion, unit: Unit, noised: Mapping[int, str], numerics: Numerics
) -> dict[HookPoint, Edit]:
    """Return the edit of each encoder's token embedding, in sigmas of its own table.

    `noised` holds the stream of each row's noise.
    """
    edits = {}
    for n, encoder in enumerate(model.encoders):
        table = token_embedding(encoder.module)
        noise_of = {
            stream: subject_noise(
                unit,
                find_subject(encoder.tokenizer, unit.caption, numerics.occurrence),
                shape=(encoder.tokenizer.model_max_length, table.embedding_dim),
                scale=noise_scale(numerics, embedding_sigma(encoder.module)),
                stream=f"{n or ''}{stream}",
            )
            for stream in set(noised.values())
        }
        edits[HookPoint(table)] = noising({row: noise_of[s] for row, s in noised.items()})
    return edits


def _output_noise(
    model: Diffusion, unit: Unit, cond: Conditioning, noised: Mapping[int, str], numerics: Numerics
) -> Conditioning:
    """Return the conditioning with noise on the subject's rows, in sigmas of the clean rows.

    A pooled embedding, which also holds the subject, is noised as a whole in sigmas of its own.
    """
    noisy = cond
    for n, place in enumerate(cond.places):
        noise_of = {
            stream: _row_noise(model, unit, cond, place, numerics, stream=f"{n or ''}{stream}")
            for stream in set(noised.values())
        }
        noises = {row: noise_of[stream] for row, stream in noised.items()}
        noisy = replace(noisy, text_RLD=noising(noises)(noisy.text_RLD))
    if cond.pooled_RP is None:
        return noisy
    clean_P = cond.pooled_RP[CLEAN]
    scale = noise_scale(numerics, float(clean_P.float().std()))
    pooled = {
        row: scale * noise_draw(unit, tuple(clean_P.shape), f"pooled{stream}")
        for row, stream in noised.items()
    }
    return replace(noisy, pooled_RP=noising(pooled)(cond.pooled_RP))


def _row_noise(
    model: Diffusion,
    unit: Unit,
    cond: Conditioning,
    place: TextPlace,
    numerics: Numerics,
    *,
    stream: str,
) -> torch.Tensor:
    """Return noise_LD on the subject's text rows that an encoder fills, zero elsewhere."""
    rows = slice(place.start, None if place.length is None else place.start + place.length)
    clean_LD = cond.text_RLD[CLEAN]
    own_LD = clean_LD[rows, : place.width]
    tokenizer = model.encoders[place.encoder].tokenizer
    span = find_subject(tokenizer, unit.caption, numerics.occurrence)
    moved = replace(
        span,
        start=place.row(span.start),
        stop=place.row(span.stop),
        before=tuple((place.row(start), place.row(stop)) for start, stop in span.before),
    )
    noise_LD = torch.zeros(clean_LD.shape)
    noise_LD[:, : place.width] = subject_noise(
        unit,
        moved,
        shape=(clean_LD.shape[0], own_LD.shape[1]),
        scale=noise_scale(numerics, float(own_LD.float().std())),
        stream=stream,
    )
    return noise_LD


def _distinct_key(cond: Conditioning) -> torch.Tensor:
    parts = (cond.text_RLD.flatten(1), cond.pooled_RP, cond.mask_RL)
    return torch.cat([part.float() for part in parts if part is not None], dim=1)


def distinct_rows(cond: Conditioning) -> tuple[list[int], list[int]]:
    """Return the first row of each distinct conditioning, and the place of every row among
    those."""
    _, group_R = torch.unique(_distinct_key(cond), dim=0, return_inverse=True)
    first: dict[int, int] = {}
    for row, group in enumerate(group_R.tolist()):
        first.setdefault(group, row)
    kept = sorted(first.values())
    return kept, [kept.index(first[group]) for group in group_R.tolist()]
