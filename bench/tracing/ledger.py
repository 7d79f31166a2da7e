"""The time of a trace by its use: the engine's functions are timed from outside.

The hooks within a call of the denoiser are timed apart from it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch

import engine.model.hooks
import engine.tracing.lockstep
import engine.tracing.trace_unit
from bench.tracing.clock import Clock
from engine.model.model import Diffusion
from engine.model.schedulers import Rows
from engine.tracing.measures import UnitScorer

DENOISER = "denoiser"


@dataclass(kw_only=True)
class Ledger:
    """The times and counts of one trace."""

    seconds: float = 0.0
    spans: dict[str, float] = field(default_factory=dict[str, float])
    """Exclusive seconds by their use, the denoiser's among them."""
    rows: int = 0
    """Rows that the denoiser read, two a guided row."""
    sources: int = 0
    """Rows of these that are sources evaluated with the batch."""


@contextmanager
def watched(model: Diffusion, now: Callable[[], float]) -> Iterator[Ledger]:
    """Yield the ledger of all tracing until exit; `now` gives the time in seconds."""
    clock, ledger = Clock(device=model.device, now=now), Ledger()
    with ExitStack() as stack:
        for owner, name, replacement in [
            *_timed_places(model, clock),
            (engine.tracing.lockstep, "copy_rows", _timed_writing(clock)),
            (engine.tracing.lockstep, "_edits", _counted_edits(clock, ledger)),
            (model.denoiser, "forward", _timed_denoiser(model, clock, ledger)),
        ]:
            stack.enter_context(mock.patch.object(owner, name, replacement))
        with clock.span("all else"):
            yield ledger
    ledger.spans = dict(clock.seconds)


def _timed_places(model: Diffusion, clock: Clock) -> Iterator[tuple[Any, str, Any]]:
    places = {
        (engine.tracing.trace_unit, "list_patches"): "listing sites and patches",
        (engine.tracing.trace_unit, "encode_rows"): "text encoding",
        (type(model.family), "encode"): "text encoding",
        (engine.tracing.trace_unit, "decode"): "VAE decoding",
        (UnitScorer, "measure"): "scoring",
        (Rows, "stepped"): "scheduler",
        (Rows, "model_input"): "scheduler",
        (engine.tracing.lockstep, "gathered"): "forking rows",
        (type(model.family), "guide"): "guidance",
        (engine.tracing.lockstep, "joined"): "joining the text of a batch",
        (engine.model.hooks, "_register"): "hooks: registering",
    }
    for (owner, name), span in places.items():
        yield owner, name, clock.wrap(span, getattr(owner, name))


def _timed_writing(clock: Clock) -> Callable[..., Any]:
    copy_rows = engine.tracing.lockstep.copy_rows
    return lambda writes: clock.wrap("hooks: copying rows", copy_rows(writes))


def _counted_edits(clock: Clock, ledger: Ledger) -> Callable[..., Any]:
    edits = clock.wrap("hooks: making edits", engine.tracing.lockstep._edits)

    def counted(batch: Any, layout: Any) -> Any:
        ledger.sources += len(batch.sources)
        return edits(batch, layout)

    return counted


def _timed_denoiser(model: Diffusion, clock: Clock, ledger: Ledger) -> Callable[..., Any]:
    forward = model.denoiser.forward

    def timed_forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        ledger.rows += len(x)
        with clock.span(DENOISER):
            return forward(x, *args, **kwargs)

    return timed_forward
