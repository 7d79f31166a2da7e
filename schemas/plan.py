"""A trace plan: the file that fully determines a run, and the units of work it consists of."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.component import Part
from schemas.tables import SCHEMA_VERSION


def content_id(content: object) -> str:
    """Return the blake2b-128 hex digest of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Caption(BaseModel):
    """A caption, the subject whose embedding is noised, and the attribute under study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    caption: str = Field(min_length=1)
    subject: str = Field(min_length=1)
    """The words that carry the attribute; they occur in the caption, verbatim."""
    attribute: str = Field(min_length=1)
    target: str | None = None
    """Text of the attribute alone that images are scored against; the subject if None."""

    @model_validator(mode="after")
    def _subject_in_caption(self) -> "Caption":
        if self.subject not in self.caption:
            raise ValueError(f"subject {self.subject!r} does not occur in caption {self.caption!r}")
        return self

    @property
    def target_text(self) -> str:
        """The text of the attribute alone."""
        return self.target if self.target is not None else self.subject

    @property
    def id(self) -> str:
        """Content hash of this caption row."""
        return content_id(self.model_dump())


class Numerics(BaseModel):
    """Every setting that changes a score besides the model, the caption and the seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=50, ge=1, le=1000)
    guidance: float = Field(default=7.5, ge=1.0, le=100.0)
    """Classifier-free guidance scale w in eps = eps_uncond + w (eps_cond - eps_uncond)."""
    noise_sigmas: float = Field(default=3.0, gt=0.0)
    """Standard deviation of the noise on the subject's tokens, in units of the measured standard
    deviation of what is noised: the token embedding table, or the caption's output rows."""
    noise_at: Literal["input", "output"] = "input"
    """UNet trace only: noise the text encoder's input embeddings or its output rows."""
    cfg_patch: Literal["cond", "both"] = "cond"
    """Restore the conditional half only (as the authors' hooks do) or both halves."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    negative_prompt: str = ""
    height: int | None = None
    """Pixels; the model's own size if None."""
    width: int | None = None


class TracePlan(BaseModel):
    """Everything that determines a run's scores, written once to the run's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "emoji-sd"
    """A built-in name, a diffusers folder or a hub id."""
    scorer: str
    """`builtin:emoji-sd`, an open_clip folder, or `ARCHITECTURE:PRETRAINED`."""
    captions: tuple[Caption, ...] = Field(min_length=1)
    parts: tuple[Part, ...] = Field(default=(Part.UNET, Part.TEXT_ENCODER), min_length=1)
    components: tuple[str, ...] | None = None
    """Names of the components to trace; all of each part if None."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(default=(0,), min_length=1)
    """Seeds of the initial latent z_T."""
    noise_draws: int = Field(default=1, ge=1)
    """Independent noise draws on the subject per (caption, seed)."""
    numerics: Numerics = Numerics()
    slab_components: int = Field(default=70, ge=1)
    """Largest number of components in one unit."""
    chunk_units: int = Field(default=2, ge=1)
    """Units that are committed together as one Parquet file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One caption x seed x noise draw x slab of components: the unit of work and of failure."""

    caption: Caption
    seed: int
    draw: int
    part: Part
    components: tuple[str, ...]


def unit_id(unit: Unit, *, model_hash: str, scorer_hash: str, numerics: Numerics) -> str:
    """Return the id of a unit: a hash of all that determines its scores."""
    return content_id(
        {
            "version": SCHEMA_VERSION,
            "model": model_hash,
            "scorer": scorer_hash,
            "numerics": numerics.model_dump(),
            "caption": unit.caption.model_dump(),
            "seed": unit.seed,
            "draw": unit.draw,
            "part": unit.part.value,
            "components": list(unit.components),
        }
    )


def plan_units(plan: TracePlan, names: dict[Part, Sequence[str]]) -> Iterator[Unit]:
    """Yield the units of `plan` in order; `names` gives each part's components to trace.

    Captions come first and parts last, so that a run cut short still covers few captions wholly.
    """
    for caption in plan.captions:
        for seed in plan.seeds:
            for draw in range(plan.noise_draws):
                for part in plan.parts:
                    for start in range(0, len(names[part]), plan.slab_components):
                        yield Unit(
                            caption=caption,
                            seed=seed,
                            draw=draw,
                            part=part,
                            components=tuple(names[part][start : start + plan.slab_components]),
                        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The scores of one restored run beside its clean and corrupted runs, against one text."""

    component: str
    token: str
    """`all` for UNet components, `last_subject` for text-encoder components."""
    against: Literal["caption", "target"]
    clean: float
    corrupted: float
    restored: float
    """CLIPScores as cosine similarities in [-1, 1]."""

    def as_row(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)
