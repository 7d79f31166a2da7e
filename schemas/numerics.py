"""The settings of a trace that determine its numbers."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from schemas.caption import Occurrence
from schemas.checked_model import CheckedModel

DEFAULT_NOISE = 3.0
"""In standard deviations of the embeddings, as ROME's traces and Basu et al. 2024 have it."""
Pixels = Annotated[int, Field(ge=8, le=16_384, multiple_of=8)]
"""A side of an image."""
_NOISES = TypeAdapter(tuple[Annotated[float, Field(gt=0.0, allow_inf_nan=False)], ...])


def _noise_sigmas(given: object) -> float | tuple[float, ...]:
    """Return one noise or several.

    ValueError: the list is empty, or a value is not a finite number above zero or is there twice.
    """
    try:
        noises = _NOISES.validate_python(given if isinstance(given, list | tuple) else (given,))
    except ValidationError as error:
        raise ValueError(error.errors(include_url=False)[0]["msg"]) from error
    if not noises:
        raise ValueError("there is no value: give one or several")
    for place, noise in enumerate(noises):
        if noise in noises[:place]:
            raise ValueError(f"{noise:g} is there twice: leave one out")
    return noises[0] if len(noises) == 1 else noises


class Numerics(CheckedModel):
    """Every setting that changes a score besides the model, the caption and the seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheduler: str | None = None
    """`ddim`, `pndm`, `euler` ...; by default the model's own."""
    steps: int = Field(default=50, ge=1, le=1000)
    guidance: float = Field(default=7.5, ge=1.0, le=100.0)
    """Classifier-free guidance scale w in eps = eps_uncond + w (eps_cond - eps_uncond)."""
    corruption: Literal["noise", "counterfactual"] = "noise"
    """Corrupt by Gaussian noise on the subject's tokens, or by the caption's counterfactual."""
    occurrence: Occurrence = "all"
    """Mentions of the subject that are corrupted; token roles follow the last of them."""
    noise_sigmas: Annotated[float | tuple[float, ...], BeforeValidator(_noise_sigmas)] = (
        DEFAULT_NOISE
    )
    """Standard deviation of the noise on the subject's tokens, in units of the measured standard
    deviation of what is noised: the token embedding table, or the caption's output rows. A plan may
    have several: each of its units is traced with each of them, by the same draws."""
    noise_absolute: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    """Standard deviation of the noise in absolute terms, instead of `noise_sigmas`."""
    noise_at: Literal["input", "output"] = "input"
    """Denoiser trace only: noise the text encoder's input embeddings or its output rows."""
    path: Literal["tokens", "pooled", "both"] = Field(
        default="both",
        exclude_if=lambda path: path == "both",  # units without a choice keep their ids
    )
    """The part of the caption that is corrupted and restored: its text rows, the pooled embedding,
    or both; the other keeps the clean caption's."""
    cfg_patch: Literal["cond", "both"] = "cond"
    """Restore the conditional half only (as the authors' hooks do) or both halves."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    negative_prompt: str = ""
    height: Pixels | None = None
    """Pixels; by default the model's own size."""
    width: Pixels | None = None

    @property
    def sweep(self) -> tuple[float, ...]:
        """Each value of `noise_sigmas`; 0 alone where the noise is not given in sigmas."""
        if self.corruption != "noise" or self.noise_absolute is not None:
            return (0.0,)
        return self.noise_sigmas if isinstance(self.noise_sigmas, tuple) else (self.noise_sigmas,)

    def at(self, noise_sigmas: float) -> "Numerics":
        """Return the settings of the units that are traced with one noise of `sweep`."""
        is_sweep = isinstance(self.noise_sigmas, tuple)
        return self.model_copy(update={"noise_sigmas": noise_sigmas}) if is_sweep else self
