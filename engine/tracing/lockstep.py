"""Denoiser runs in lockstep: rows fork from kept trajectories and copy activations of other rows.

At every step the denoiser's batch is [unconditional rows, sources, rows]; the hook of a component
writes the sources' output into the rows that it is patched in. Activations are never stored.

Shapes: R rows, C channels, h x w latent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch

from engine.model.conditioning import Conditioning, joined
from engine.model.hooks import ActivationCopy, Edit, HookPoint, Side, copy_rows, patched
from engine.model.model import Diffusion
from engine.model.sampling import denoiser_output, starting_rows, unconditional
from engine.model.schedulers import Rows, evaluated, gathered
from engine.tracing.interventions import Patch, Reference
from schemas.numerics import Numerics


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectories:
    """Trajectories of reference runs."""

    cond: Conditioning
    """One row per run."""
    uncond: Conditioning | None
    """The single row of the negative prompt; None without guidance."""
    rows: Sequence[Rows]
    """The rows before every step and after the last."""
    uncond_outputs: Sequence[torch.Tensor]
    """The denoiser's output for the negative prompt at every step, a row per run; empty if not
    guided."""

    @property
    def final(self) -> torch.Tensor:
        """The runs' final latents_RChw."""
        return self.rows[-1].x_RChw


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """The rows that the denoiser evaluates at one step."""

    sources: Sequence[int] = ()
    """Reference runs that are evaluated too, from their kept latents; empty where they are rows."""
    rows: Rows
    bases: Sequence[int]
    """The reference run that each row follows."""
    texts: Sequence[int]
    """The conditioning that each row reads."""
    patches: Sequence[tuple[int, Patch]]
    """Rows that are patched at this step, with a patch each; a row may have several."""
    fresh: int
    """Number of last rows that fork at this step: their latents are those of their bases."""

    def place(self, source: int) -> int:
        """Return a source's place among sources and rows; reference runs are the first rows."""
        return self.sources.index(source) if self.sources else source


def run_references(
    model: Diffusion,
    runs: Sequence[Reference],
    cond: Conditioning,
    *,
    patches: Sequence[Patch] = (),
    texts: Conditioning | None = None,
    numerics: Numerics,
) -> tuple[Trajectories, torch.Tensor]:
    """Return the trajectories of reference runs and the final latents_RChw of patched ones.

    All advance together: the windows of these patches open at the first step. `texts` has a row for
    each of them; by default they read what their bases do.
    """
    uncond = unconditional(model, numerics)
    stepper = _Stepper(model, _with(cond, texts), uncond, numerics)
    bases = [*range(len(runs)), *(patch.base for patch in patches)]
    rows = starting_rows(model, [runs[base].seed for base in bases], numerics)
    history, uncond_outputs = [_first(rows, len(runs))], []
    for step in range(len(evaluated(rows.scheduler))):
        open_now = [
            (row, part)
            for row, patch in enumerate(patches, start=len(runs))
            for part in patch.open_at(step)
        ]
        fresh = len(patches) if step == 0 else 0
        batch = _Batch(
            rows=rows,
            bases=bases,
            texts=bases if texts is None else range(len(bases)),
            patches=open_now,
            fresh=fresh,
        )
        rows, uncond_output = stepper.advance(batch, step, past=None)
        history.append(_first(rows, len(runs)))
        uncond_outputs += [] if uncond_output is None else [uncond_output[: len(runs)]]
    past = Trajectories(cond=cond, uncond=uncond, rows=history, uncond_outputs=uncond_outputs)
    return past, rows.x_RChw[len(runs) :]


def _with(cond: Conditioning, texts: Conditioning | None) -> Conditioning:
    return cond if texts is None else joined([cond, texts])


def _first(rows: Rows, count: int) -> Rows:
    return gathered([(rows, range(count))])


def run_patches(
    model: Diffusion,
    past: Trajectories,
    patches: Sequence[Patch],
    numerics: Numerics,
    *,
    texts: Conditioning | None = None,
) -> torch.Tensor:
    """Return the final latents_RChw of patched runs, which are given in the order of their windows.

    `texts` has a row for each of them; by default they read what their bases do.
    """
    stepper = _Stepper(model, _with(past.cond, texts), past.uncond, numerics)
    rows: Rows | None = None
    for step in range(patches[0].window[0], len(past.rows) - 1):
        fresh = [patch.base for patch in patches if patch.window[0] == step]
        parts = [] if rows is None else [(rows, range(len(rows)))]
        rows = gathered([*parts, (past.rows[step], fresh)] if fresh else parts)
        present = patches[: len(rows)]
        open_now = [(row, part) for row, c in enumerate(present) for part in c.open_at(step)]
        bases = [patch.base for patch in present]
        batch = _Batch(
            sources=sorted({source for _, patch in open_now for source in patch.sources}),
            rows=rows,
            bases=bases,
            texts=bases if texts is None else range(len(past.cond), len(past.cond) + len(present)),
            patches=open_now,
            fresh=len(fresh),
        )
        rows, _ = stepper.advance(batch, step, past=past)
    assert rows is not None
    return rows.x_RChw


class _Layout(NamedTuple):
    """Where the parts of the denoiser's batch are, in their order; any but `rows` may be empty."""

    uncond_sources: slice
    """Sources under the negative prompt: only where its activations are copied too."""
    uncond_rows: slice
    """The first rows under the negative prompt, up to those whose output is known."""
    sources: slice
    rows: slice
    blocks: tuple[int, ...]
    """Where each run of sources and rows begins that activations are copied in."""

    @classmethod
    def of(cls, batch: _Batch, *, is_guided: bool, cfg_patch: str) -> "_Layout":
        """Return the layout of a batch."""
        both = is_guided and cfg_patch == "both"
        # A row that forks now has its base's latents: the negative prompt's output is known,
        # unless it is itself patched.
        known = 0 if both else batch.fresh
        sources, rows = len(batch.sources), len(batch.rows)
        counts = (sources if both else 0, rows - known if is_guided else 0, sources, rows)
        stops = tuple(accumulate(counts))
        parts = [slice(stop - count, stop) for count, stop in zip(counts, stops, strict=True)]
        return cls(*parts, blocks=(0, stops[1]) if both else (stops[1],))


class _Stepper:
    """Advances batches by one step."""

    def __init__(
        self,
        model: Diffusion,
        cond: Conditioning,
        uncond: Conditioning | None,
        numerics: Numerics,
    ) -> None:
        self._model, self._cond, self._uncond, self._numerics = model, cond, uncond, numerics

    def advance(
        self, batch: _Batch, step: int, *, past: Trajectories | None
    ) -> tuple[Rows, torch.Tensor | None]:
        """Return the rows after a step, and the denoiser's unconditional output of each."""
        rows, is_guided = batch.rows, self._uncond is not None
        layout = _Layout.of(batch, is_guided=is_guided, cfg_patch=self._numerics.cfg_patch)
        output = self._output(batch, layout, step, past)
        prediction, uncond_output = output[layout.rows], None
        if is_guided:
            uncond_output = output[layout.uncond_rows]
            of_runs = past.uncond_outputs[step] if past else uncond_output
            known = list(batch.bases[len(uncond_output) :])
            uncond_output = torch.cat([uncond_output, of_runs[known]])
            channels = rows.x_RChw.shape[1]
            prediction = self._model.family.guide(
                uncond_output,
                prediction,
                guidance=self._numerics.guidance,
                channels=channels,
            )
        return rows.stepped(rows.read(prediction), step), uncond_output

    def _output(
        self, batch: _Batch, layout: _Layout, step: int, past: Trajectories | None
    ) -> torch.Tensor:
        """Return the denoiser's output of a whole batch, patched."""
        row_x = batch.rows.model_input(step)
        sources = list(batch.sources)
        source_x = past.rows[step].model_input(step)[sources] if past else row_x[:0]
        uncond_sources, uncond_rows = map(_count, layout[:2])
        x = torch.cat([source_x[:uncond_sources], row_x[:uncond_rows], source_x, row_x])
        cond = self._cond.take([*sources, *batch.texts])
        if self._uncond is not None:
            cond = joined([self._uncond.take([0] * layout.sources.start), cond])
        t = evaluated(batch.rows.scheduler)[step]
        with patched(_edits(batch, layout)):
            return denoiser_output(self._model, x, t, cond, self._numerics)


def _count(part: slice) -> int:
    return part.stop - part.start


def _edits(batch: _Batch, layout: _Layout) -> dict[HookPoint, Edit]:
    """Return each hook point's edit: the sources' activation into the rows that are patched."""
    writes: dict[HookPoint, list[ActivationCopy]] = {}
    cells = batch.rows.x_RChw[0, 0].numel()
    for row, patch in batch.patches:
        for site in patch.sites:
            for start in layout.blocks:
                written = start + len(batch.sources) + row
                sources = tuple(start + batch.place(source) for source in patch.sources)
                if site.spot.side is Side.THROUGH:  # its rows before the block follow all after it
                    sources = (layout.rows.stop + written,)
                writes.setdefault(site.spot, []).append(
                    ActivationCopy(
                        row=written,
                        sources=sources,
                        channels=site.channels,
                        positions=site.span(cells),
                    )
                )
    return {spot: copy_rows(spot_writes) for spot, spot_writes in writes.items()}
