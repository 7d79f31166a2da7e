"""Reading the inputs of the denoiser's projections of text, at the positions of prompts.

The text projection, the pooled projection and cross-attentions read the text encoders alone: no
denoiser runs. A refiner of the text (Z-Image) reads the same at every step of every image. A joint
attention reads a text stream that has met the image and the timestep, so that its keys are read in
runs of the denoiser at a few steps of a few images. These are drawn for the empty caption, so that
a prompt and its replacement face each other at the same latent.

Shapes: N prompts, T tokens, L text rows, P wanted rows, D a projection's inputs, C channels, h x w
latent.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from engine.editing.editable import Editable
from engine.editing.positions import Rows, prompt_rows
from engine.editing.readers import Prompts, Read, Reader, chunks, encoder_reader
from engine.model.components import Site, sites_of
from engine.model.conditioning import Conditioning, TextPlace
from engine.model.defaults import default_sampling
from engine.model.hooks import HookPoint, Side, read_until
from engine.model.model import Diffusion
from engine.model.sampling import denoiser_output, starting_rows
from engine.model.schedulers import evaluated
from schemas.component import Kind, Part
from schemas.edit_settings import RoleWeights
from schemas.numerics import Numerics

RUN_TOGETHER = 8
"""Prompts that the denoiser runs on together: FLUX.1's feed-forward at 1024 pixels takes 1 GB."""
TEXT_ALONE = (Kind.SELF_ATTENTION_TEXT, Kind.FEED_FORWARD_TEXT)
"""Kinds whose editable projections read the text before it meets an image or a timestep."""
IMAGES = 2
STEPS = 3
"""Images, and steps of each from the first on, at which a joint attention's keys are read."""

Activation = Callable[[Conditioning], torch.Tensor]
"""Returns a component's inputs for captions, one row for each text row, `_NLD`."""


def open_readers(model: Diffusion, editable: Editable) -> list[Reader]:
    """Return the readers of a component, whose rows are its keys together.

    One for each place of an encoder among the text rows (two in SD3) and each latent at which a
    joint attention is read.
    """
    component = editable.component
    if component.part is Part.TEXT_ENCODER:
        return [encoder_reader(model, editable)]
    if component.kind is Kind.POOLED_PROJECTION:
        return [_PooledRows(model)]
    empty = model.family.encode(model, model.token_ids([""]))
    return [
        _TextRows(model, place, is_masked=empty.mask_RL is not None, activation=activation)
        for activation in _activations(model, editable)
        for place in empty.places
    ]


def _activations(model: Diffusion, editable: Editable) -> list[Activation]:
    kind, family = editable.component.kind, model.family
    if kind is Kind.TEXT_PROJECTION:
        return [lambda cond: family.text_projection_rows(model.denoiser, cond.text_RLD)]
    if kind is Kind.CROSS_ATTENTION:
        return [lambda cond: family.cross_attention_rows(model.denoiser, cond.text_RLD)]
    projection = next(iter(editable.projections.values()))
    if kind in TEXT_ALONE:
        return [next(_sampled(model)).reading(projection, model)]
    site = sites_of(model, [editable.component.name])[editable.component.name]
    return [sample.reading(projection, model, site) for sample in sampled_latents(model)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One latent on the way to an image."""

    x_1Chw: torch.Tensor
    """As the denoiser reads it."""
    t: torch.Tensor
    """The scheduler's timestep."""
    numerics: Numerics

    def reading(
        self, projection: torch.nn.Module, model: Diffusion, site: Site | None = None
    ) -> Activation:
        """Return a function that reads a projection's input in a run at this latent, from its first
        text token on: in a single stream that begins with the image, after the image's `site`."""
        spot = HookPoint(projection, Side.INPUT)
        image = None if site is None else site.span(self.x_1Chw[0, 0].numel())
        first = 0 if image is None else image.stop or 0

        def read(cond: Conditioning) -> torch.Tensor:
            x_NChw = self.x_1Chw.repeat(len(cond), 1, 1, 1)
            (read_NLD,) = read_until(
                [spot], lambda: denoiser_output(model, x_NChw, self.t, cond, self.numerics)
            )
            return read_NLD[:, first:]

        return lambda cond: torch.cat([read(part) for part in _split(cond, RUN_TOGETHER)])


def sampled_latents(model: Diffusion) -> list[Sample]:
    """Return latents of runs for the empty caption, STEPS of each of IMAGES seeds.

    At every guidance such a run is unguided: both halves of a guided one have the same caption.
    """
    return list(_sampled(model))


def _sampled(model: Diffusion) -> Iterator[Sample]:
    sampling = default_sampling(model.name)
    numerics = Numerics(steps=sampling.steps, guidance=sampling.guidance)
    rows = starting_rows(model, range(IMAGES), numerics)
    cond = model.family.encode(model, model.token_ids([""] * IMAGES))
    times = list(evaluated(rows.scheduler))
    wanted = {n * len(times) // STEPS for n in range(STEPS)}
    for step, t in enumerate(times[: max(wanted) + 1]):
        x_RChw = rows.model_input(step)
        if step in wanted:
            for x_1Chw in x_RChw.split(1):
                yield Sample(x_1Chw=x_1Chw, t=t, numerics=numerics)
        output = denoiser_output(model, x_RChw, t, cond, numerics)
        rows = rows.stepped(rows.read(output), step)


class _TextRows:
    """Rows of the text, at the token positions of one encoder: the encoders run to their ends."""

    def __init__(
        self, model: Diffusion, place: TextPlace, *, is_masked: bool, activation: Activation
    ) -> None:
        self.encoder = place.encoder
        self._model, self._place, self._activation = model, place, activation
        self._is_masked = is_masked

    def rows(self, prompts: Prompts, roles: RoleWeights | None) -> Rows:
        """Return the positions that become text rows and that the denoiser reads."""
        rows = prompt_rows(prompts.spans, prompts.length, roles)
        is_read_P = rows.place_P >= self._place.skipped
        if self._is_masked:
            eos_N = torch.tensor([span.eos for span in prompts.spans])
            is_read_P &= rows.place_P <= eos_N[rows.prompt_P]
        return rows.where(is_read_P)

    def read(self, prompts: Prompts, rows: Rows) -> Read:
        moved = self._place.row(0)
        parts = [
            self._activation(cond).cpu()[of_chunk.prompt_P - start, of_chunk.place_P + moved]
            for start, of_chunk, cond in _encoded(self._model, prompts, rows)
        ]
        return Read(key_PD=torch.cat(parts).double(), stream_PE=None)


class _PooledRows:
    """The pooled embedding, one row for each prompt; it stands at the prompt's EOS."""

    encoder = 0

    def __init__(self, model: Diffusion) -> None:
        self._model = model

    def rows(self, prompts: Prompts, roles: RoleWeights | None) -> Rows:
        """Return one row for each prompt, whatever the roles weigh."""
        return Rows(
            prompt_P=torch.arange(len(prompts.spans)),
            place_P=torch.tensor([span.eos for span in prompts.spans]),
            weight_P=torch.ones(len(prompts.spans), dtype=torch.float64),
        )

    def read(self, prompts: Prompts, rows: Rows) -> Read:
        parts: list[torch.Tensor] = []
        for start, of_chunk, cond in _encoded(self._model, prompts, rows):
            assert cond.pooled_RP is not None
            parts.append(cond.pooled_RP.cpu()[of_chunk.prompt_P - start])
        return Read(key_PD=torch.cat(parts).double(), stream_PE=None)


def _encoded(
    model: Diffusion, prompts: Prompts, rows: Rows
) -> Iterator[tuple[int, Rows, Conditioning]]:
    """Yield the number of a chunk's first prompt, the rows of the chunk, and its conditioning."""
    for chunk, of_chunk in chunks(prompts, rows):
        ids = [ids_NT[chunk].to(model.device) for ids_NT in prompts.ids]
        yield chunk.start, of_chunk, model.family.encode(model, ids)


def _split(cond: Conditioning, rows: int) -> Iterator[Conditioning]:
    for start in range(0, len(cond), rows):
        yield cond.take(range(start, min(start + rows, len(cond))))
