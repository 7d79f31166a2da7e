"""The settings of a trace that determine its numbers."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.caption import Occurrence


class Numerics(BaseModel):
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
    noise_sigmas: float = Field(default=3.0, gt=0.0, allow_inf_nan=False)
    """Standard deviation of the noise on the subject's tokens, in units of the measured standard
    deviation of what is noised: the token embedding table, or the caption's output rows."""
    noise_absolute: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    """Standard deviation of the noise in absolute terms, instead of `noise_sigmas`."""
    noise_at: Literal["input", "output"] = "input"
    """UNet trace only: noise the text encoder's input embeddings or its output rows."""
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
    height: Annotated[int, Field(ge=8, multiple_of=8)] | None = None
    """Pixels; by default the model's own size."""
    width: Annotated[int, Field(ge=8, multiple_of=8)] | None = None
