"""The noises of a run that has several, in words."""

from collections.abc import Iterable
from typing import Any

from jobs.query.rank import sigmas
from jobs.runs.trace_run import TraceRun


def noise_text(run: TraceRun, noise_sigmas: float) -> str:
    """Return a noise as text; "" in a run of one noise, which need not be said."""
    return sigmas(noise_sigmas) if len(run.plan.numerics.sweep) > 1 else ""


def with_noise_texts(run: TraceRun, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a run's rows with `noise_sigmas` as `noise_text` writes it."""
    return [row | {"noise_sigmas": noise_text(run, row["noise_sigmas"])} for row in rows]


def under(noise: str) -> str:
    """Return the words ", noise 3" for a `noise_text` of 3, to end a list; "" for none."""
    return f", noise {noise}" if noise else ""
