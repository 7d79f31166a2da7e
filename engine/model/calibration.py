"""Measure the fastest batch size of a device for a model, and the time of a row.

Shapes: R rows.
"""

import logging
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from engine.model.conditioning import Conditioning, joined
from engine.model.device import MPS
from engine.model.model import Diffusion
from engine.model.sampling import denoiser_output, encode, starting_rows, unconditional
from engine.model.schedulers import evaluated
from schemas.numerics import Numerics

T = TypeVar("T")
logger = logging.getLogger(__name__)

MAX_ROWS = 64
WORTHWHILE = 0.97
"""Doubling stops once two doublings in a row leave a row's time above this share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The batch size and time measured on a device."""

    device: str
    rows: int
    """Rows of the batch with the least time per row."""
    row_seconds: float
    """Time of one row of one step: two rows of the denoiser where sampling is guided."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether memory ran out; the CPU allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class BatchRows:
    """The rows of a batch on this process's device, halved for good when memory runs out."""

    def __init__(self, rows: int, *, least: int) -> None:
        """Begin with `rows`, and never go below `least`."""
        self._rows, self._least = rows, least

    def fit(self, work: Callable[[int], T]) -> T:
        """Return the result of `work` for as many rows as fit; its error if not even `least` do."""
        while True:
            try:
                return work(self._rows)
            except RuntimeError as error:
                if not is_out_of_memory(error) or self._rows <= self._least:
                    raise
                self._rows = max(self._least, self._rows // 2)
                logger.warning("out of memory: continuing with %d rows", self._rows)
            # Outside of the handler, whose error holds the frames' tensors.
            torch.cuda.empty_cache()


@torch.inference_mode()
def calibrate(model: Diffusion, numerics: Numerics) -> Calibration:
    """Return the batch of 2, 4, 8 ... rows that takes the least time a row of denoiser calls.

    It stops when doubling gains little, memory runs out, or the next batch would not fit the host's
    memory.
    """
    prompt = encode(model, ["a photo"])
    uncond = unconditional(model, numerics)
    if uncond is not None:
        prompt = joined([uncond, prompt])
    rows, best = 2, Calibration(device=device_name(model.device), rows=2, row_seconds=float("inf"))
    misses = 0
    while rows <= MAX_ROWS and misses < 2:
        peak_before = _peak_bytes()
        try:
            row_seconds = _call_seconds(model, prompt, numerics, rows) / rows
        except RuntimeError as error:
            if not is_out_of_memory(error) or rows == 2:
                raise
            break
        misses = 0 if row_seconds < WORTHWHILE * best.row_seconds else misses + 1
        if row_seconds < best.row_seconds:
            best = Calibration(device=best.device, rows=rows, row_seconds=row_seconds)
        if not _fits_host(model.device, 2 * (_peak_bytes() - peak_before)):
            break
        rows *= 2
    return best


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or that of the CPU with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == MPS:
        return "Apple GPU"
    return f"CPU, {torch.get_num_threads()} threads"


def _call_seconds(model: Diffusion, prompt: Conditioning, numerics: Numerics, rows: int) -> float:
    """Return the shorter time of two denoiser calls on a batch as a trace's: rows, each as often as
    `prompt` has halves, and the run whose activations they copy."""
    halves = [half for half in range(len(prompt)) for _ in range(rows)]
    cond = prompt.take([*halves, len(prompt) - 1])
    start = starting_rows(model, [0] * len(cond), numerics)
    x = start.model_input(0)
    t = evaluated(start.scheduler)[0]
    times = []
    for _ in range(2):  # the first call may include warm-up
        begin = time.perf_counter()
        # The copy to the host waits for the device.
        float(denoiser_output(model, x, t, cond, numerics)[0, 0, 0, 0])
        times.append(time.perf_counter() - begin)
    return min(times)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _fits_host(device: torch.device, more_bytes: int) -> bool:
    if device.type != "cpu":
        return True
    return more_bytes < 0.5 * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
