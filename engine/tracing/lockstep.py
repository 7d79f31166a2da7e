"""UNet runs in lockstep: rows that fork from kept trajectories and copy from donors beside them.

At every step the UNet's batch is [unconditional rows, donors, rows]; the hook of a component writes
the donors' output into the rows that it is changed in. Activations are never stored.

Shapes: R rows, C channels, h x w latent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.model.hooks import ActivationCopy, Edit, HookPoint, copy_rows, patched
from engine.model.model import Conditioning, Diffusion, joined
from engine.model.sampling import for_scheduler, guided, starting_rows, unconditional, unet_output
from engine.model.schedulers import Rows, gathered
from engine.tracing.interventions import Patch, Reference
from schemas.numerics import Numerics


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectories:
    """The trajectories of reference runs."""

    cond: Conditioning
    """One row a run."""
    uncond: Conditioning | None
    """The negative prompt's one row; None if unguided."""
    rows: Sequence[Rows]
    """The runs before every step and after the last."""
    uncond_outputs: Sequence[torch.Tensor]
    """The UNet's output for the negative prompt at every step, a row a run; empty if unguided."""

    @property
    def final(self) -> torch.Tensor:
        """The runs' final latents_RChw."""
        return self.rows[-1].x_RChw


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """What the UNet evaluates at one step."""

    sources: Sequence[int] = ()
    """Reference runs whose kept latents are evaluated too, for something to be copied from."""
    rows: Rows
    bases: Sequence[int]
    """The reference run of each row, whose conditioning it has."""
    changes: Sequence[tuple[int, Patch]]
    """Rows that are changed at this step, with the change."""
    fresh: int
    """The last rows, which fork at this step: their latents are their bases'."""

    def place(self, donor: int) -> int:
        """Return a donor's place among donors and rows; without donors, runs are the first rows."""
        return self.sources.index(donor) if self.sources else donor


def run_references(
    model: Diffusion,
    runs: Sequence[Reference],
    cond: Conditioning,
    *,
    changes: Sequence[Patch] = (),
    numerics: Numerics,
) -> tuple[Trajectories, torch.Tensor]:
    """Return the trajectories of reference runs and the final latents_RChw of changed ones.

    All advance together: the windows of these changes open at the first step.
    """
    uncond = unconditional(model, numerics)
    stepper = _Stepper(model, cond, uncond, numerics)
    bases = [*range(len(runs)), *(change.base for change in changes)]
    rows = starting_rows(model, [runs[base].seed for base in bases], numerics)
    history, uncond_outputs = [_first(rows, len(runs))], []
    for step in range(len(rows.scheduler.timesteps)):
        open_now = [(n, c) for n, c in enumerate(changes, start=len(runs)) if c.is_open(step)]
        fresh = len(changes) if step == 0 else 0
        batch = _Batch(rows=rows, bases=bases, changes=open_now, fresh=fresh)
        rows, uncond_output = stepper.advance(batch, step, past=None)
        history.append(_first(rows, len(runs)))
        uncond_outputs += [] if uncond_output is None else [uncond_output[: len(runs)]]
    past = Trajectories(cond=cond, uncond=uncond, rows=history, uncond_outputs=uncond_outputs)
    return past, rows.x_RChw[len(runs) :]


def _first(rows: Rows, count: int) -> Rows:
    return gathered([(rows, range(count))])


def run_changes(
    model: Diffusion, past: Trajectories, changes: Sequence[Patch], numerics: Numerics
) -> torch.Tensor:
    """Return the final latents_RChw of changed runs, given in the order in which they open."""
    stepper = _Stepper(model, past.cond, past.uncond, numerics)
    rows: Rows | None = None
    for step in range(changes[0].window[0], len(past.rows) - 1):
        fresh = [change.base for change in changes if change.window[0] == step]
        parts = [] if rows is None else [(rows, range(len(rows)))]
        rows = gathered([*parts, (past.rows[step], fresh)] if fresh else parts)
        present = changes[: len(rows)]
        open_now = [(row, c) for row, c in enumerate(present) if c.is_open(step)]
        batch = _Batch(
            sources=sorted({donor for _, change in open_now for donor in change.sources}),
            rows=rows,
            bases=[change.base for change in present],
            changes=open_now,
            fresh=len(fresh),
        )
        rows, _ = stepper.advance(batch, step, past=past)
    assert rows is not None
    return rows.x_RChw


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
        """Return the rows after a step, and the UNet's unconditional output of each."""
        rows, sources = batch.rows, list(batch.sources)
        row_x = rows.model_input(step)
        donor_x = past.rows[step].model_input(step)[sources] if past else row_x[:0]
        cond = self._cond.take([*sources, *batch.bases])
        if self._uncond is None:
            output = self._output(batch, torch.cat([donor_x, row_x]), cond, step, uncond_rows=0)
            return rows.stepped(for_scheduler(output[len(sources) :], rows), step), None
        # A row that forks now has its base's latents: the negative prompt's output is known,
        # unless it is itself changed.
        both = self._numerics.cfg_patch == "both"
        known = 0 if both else batch.fresh
        uncond_x = torch.cat([donor_x[: len(sources) if both else 0], row_x[: len(rows) - known]])
        output = self._output(
            batch,
            torch.cat([uncond_x, donor_x, row_x]),
            joined([self._uncond.take([0] * len(uncond_x)), cond]),
            step,
            uncond_rows=len(uncond_x),
        )
        uncond_output = output[len(sources) if both else 0 : len(uncond_x)]
        if known:
            of_runs = past.uncond_outputs[step] if past else uncond_output
            bases = list(batch.bases[len(rows) - known :])
            uncond_output = torch.cat([uncond_output, of_runs[bases]])
        prediction = guided(
            uncond_output,
            output[len(uncond_x) + len(sources) :],
            self._numerics.guidance,
            rows.x_RChw.shape[1],
        )
        return rows.stepped(for_scheduler(prediction, rows), step), uncond_output

    def _output(
        self, batch: _Batch, x: torch.Tensor, cond: Conditioning, step: int, *, uncond_rows: int
    ) -> torch.Tensor:
        both = self._numerics.cfg_patch == "both" and uncond_rows > 0
        with patched(_edits(batch, uncond_rows=uncond_rows, both=both)):
            t = batch.rows.scheduler.timesteps[step]
            return unet_output(self._model, x, t, cond, self._numerics)


def _edits(batch: _Batch, *, uncond_rows: int, both: bool) -> dict[HookPoint, Edit]:
    """Return each spot's edit: the donors' activation into the rows that are changed.

    `both`: in the unconditional part too, which then begins with the donors.
    """
    starts = [uncond_rows, 0] if both else [uncond_rows]
    writes: dict[HookPoint, list[ActivationCopy]] = {}
    for row, change in batch.changes:
        for site in change.sites:
            writes.setdefault(site.spot, []).extend(
                ActivationCopy(
                    row=start + len(batch.sources) + row,
                    sources=tuple(start + batch.place(donor) for donor in change.sources),
                    channels=site.channels,
                )
                for start in starts
            )
    return {spot: copy_rows(spot_writes) for spot, spot_writes in writes.items()}
