"""A trace plan: the file that fully determines a run, and the units of work it consists of."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.component import PAPER_KINDS, Kind, Part
from schemas.errors import PlanError
from schemas.intervention import Intervention, TokenRole
from schemas.tables import SCHEMA_VERSION
from schemas.window import Window, expand_windows

T = TypeVar("T")


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
    counterfactual: str | None = None
    """What takes the subject's place where corruption is by replacement: as many tokens."""

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
    def counterfactual_text(self) -> str:
        """The caption with the subject replaced; PlanError if no counterfactual is given."""
        if self.counterfactual is None:
            raise PlanError(
                f"caption {self.caption!r} has no counterfactual: give what replaces the subject "
                f"{self.subject!r}"
            )
        start, stop = self.subject_characters
        return self.caption[:start] + self.counterfactual + self.caption[stop:]

    @property
    def subject_characters(self) -> tuple[int, int]:
        """The characters of the subject's first occurrence as whole words, else of any."""
        word = re.search(rf"(?<!\w){re.escape(self.subject)}(?!\w)", self.caption)
        start = word.start() if word else self.caption.index(self.subject)
        return start, start + len(self.subject)

    @cached_property
    def id(self) -> str:
        """Content hash of this caption row."""
        return content_id(self.model_dump())


class Numerics(BaseModel):
    """Every setting that changes a score besides the model, the caption and the seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheduler: str | None = None
    """`ddim`, `pndm`, `euler` ...; the model's own if None."""
    steps: int = Field(default=50, ge=1, le=1000)
    guidance: float = Field(default=7.5, ge=1.0, le=100.0)
    """Classifier-free guidance scale w in eps = eps_uncond + w (eps_cond - eps_uncond)."""
    corruption: Literal["noise", "counterfactual"] = "noise"
    """Corrupt by Gaussian noise on the subject's tokens, or by the caption's counterfactual."""
    noise_sigmas: float = Field(default=3.0, gt=0.0)
    """Standard deviation of the noise on the subject's tokens, in units of the measured standard
    deviation of what is noised: the token embedding table, or the caption's output rows."""
    noise_absolute: float | None = Field(default=None, gt=0.0)
    """Standard deviation of the noise as it is, in place of `noise_sigmas`."""
    noise_at: Literal["input", "output"] = "input"
    """UNet trace only: noise the text encoder's input embeddings or its output rows."""
    cfg_patch: Literal["cond", "both"] = "cond"
    """Restore the conditional half only (as the authors' hooks do) or both halves."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    negative_prompt: str = ""
    height: Annotated[int, Field(ge=8, multiple_of=8)] | None = None
    """Pixels; the model's own size if None."""
    width: Annotated[int, Field(ge=8, multiple_of=8)] | None = None


REPEATABLE = (
    "captions", "parts", "kinds", "components", "windows", "tokens", "interventions", "scores",
    "seeds",
)  # fmt: skip
"""Fields of a plan of which every combination is scored."""


class TracePlan(BaseModel):
    """Everything that determines a run's scores, written once to the run's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "emoji-sd"
    """A built-in name, a diffusers folder or a hub id, with `@COMMIT` once it is checked."""
    scorer: str
    """`builtin:emoji-sd`, an open_clip folder, or `ARCHITECTURE:PRETRAINED`."""
    captions: tuple[Caption, ...] = Field(min_length=1)
    parts: tuple[Part, ...] = Field(default=(Part.UNET, Part.TEXT_ENCODER), min_length=1)
    kinds: tuple[Kind, ...] = Field(default=PAPER_KINDS, min_length=1)
    """Kinds of component to trace."""
    components: tuple[str, ...] | None = None
    """Names of the components to trace, whatever their kind; all of `kinds` if None."""
    consecutive: int = Field(default=1, ge=1)
    """Components of one kind, next to one another in the network, that are restored together."""
    windows: tuple[str, ...] = Field(default=("all",), min_length=1)
    """UNet trace: when a component is restored, as `schemas.window.expand_windows` reads it."""
    tokens: tuple[TokenRole, ...] = Field(default=(TokenRole.LAST_SUBJECT,), min_length=1)
    """Text-encoder trace: where a component is restored."""
    interventions: tuple[Intervention, ...] = Field(default=(Intervention.RESTORE,), min_length=1)
    references: tuple[str, ...] = ()
    """Captions whose clean runs are the donors of `mean` and of `other-caption`."""
    scores: tuple[str, ...] = Field(default=("caption", "target"), min_length=1)
    """Names of the measures that every image is scored by."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(default=(0,), min_length=1)
    """Seeds of the initial latent z_T."""
    noise_draws: int = Field(default=1, ge=1)
    """Independent noise draws on the subject per (caption, seed)."""
    numerics: Numerics = Numerics()
    slab_components: int = Field(default=70, ge=1)
    """Largest number of components in one unit."""
    slab_windows: int = Field(default=25, ge=1)
    """Largest number of windows in one unit."""
    chunk_units: int = Field(default=2, ge=1)
    """Units that are committed together as one Parquet file."""

    @model_validator(mode="after")
    def _nothing_twice(self) -> "TracePlan":
        """Refuse repeats: what they score would count twice."""
        for name in REPEATABLE:
            values = getattr(self, name) or ()
            if len(set(values)) < len(values):
                twice = next(value for value in values if values.count(value) > 1)
                shown = twice.caption if isinstance(twice, Caption) else str(twice)
                raise ValueError(f"{name} has {shown!r} twice: leave one out")
        if {TokenRole.WORDS, TokenRole.EACH} <= set(self.tokens):
            raise ValueError("tokens has `words` and `each`, which holds them: leave one out")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One caption x seed x noise draw x slab: the unit of work and of failure.

    The slab is every combination of its components, windows, tokens and interventions that there
    is: the text encoder has no windows, the UNet no tokens, and only cross-attention can `swap`.
    """

    caption: Caption
    seed: int
    draw: int
    part: Part
    components: tuple[str, ...]
    """Names; consecutive components that are restored together are named FIRST..LAST."""
    windows: tuple[Window, ...]
    tokens: tuple[TokenRole, ...] = (TokenRole.LAST_SUBJECT,)
    interventions: tuple[Intervention, ...] = (Intervention.RESTORE,)
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slab:
    """Components and windows of one part that every unit of it traces together."""

    part: Part
    components: tuple[str, ...]
    windows: tuple[Window, ...]

    @property
    def id(self) -> str:
        """Content hash of this slab."""
        return content_id(asdict(self))


@dataclass(frozen=True)
class Units:
    """A plan's units in order, each made when it is asked for: a plan may have millions.

    Captions come first and slabs last, so that a run cut short still covers few captions wholly.
    """

    plan: TracePlan
    slabs: tuple[Slab, ...]

    def __len__(self) -> int:
        """Return the number of units."""
        plan = self.plan
        return len(plan.captions) * len(plan.seeds) * plan.noise_draws * len(self.slabs)

    def __iter__(self) -> Iterator[Unit]:
        """Yield the units in order."""
        return (self[ordinal] for ordinal in range(len(self)))

    def __getitem__(self, ordinal: int) -> Unit:
        """Return one unit by its place in the plan's order."""
        caption, seed, draw, number = self.place(ordinal)
        plan, slab = self.plan, self.slabs[number]
        return Unit(
            caption=plan.captions[caption],
            seed=plan.seeds[seed],
            draw=draw,
            part=slab.part,
            components=slab.components,
            windows=slab.windows,
            tokens=plan.tokens,
            interventions=plan.interventions,
            references=plan.references,
        )

    def place(self, ordinal: int) -> tuple[int, int, int, int]:
        """Return the indexes of a unit's caption, seed, noise draw and slab."""
        if not 0 <= ordinal < len(self):
            raise IndexError(ordinal)
        rest, slab = divmod(ordinal, len(self.slabs))
        rest, draw = divmod(rest, self.plan.noise_draws)
        caption, seed = divmod(rest, len(self.plan.seeds))
        return caption, seed, draw, slab

    def places(self, ordinals: Sequence[int]) -> list[tuple[int, int, int, int]]:
        """Return what `place` does of many units, which all exist, ten times as quickly."""
        rest, slabs = np.divmod(np.asarray(ordinals, dtype=np.int64), len(self.slabs))
        rest, draws = np.divmod(rest, self.plan.noise_draws)
        captions, seeds = np.divmod(rest, len(self.plan.seeds))
        columns = (column.tolist() for column in (captions, seeds, draws, slabs))
        return list(zip(*columns, strict=True))

    def ids(self, *, model_hash: str, scorer_hash: str) -> "UnitIds":
        """Return the units' ids: hashes of all that determines their scores."""
        plan = self.plan
        shared = content_id(
            {
                "version": SCHEMA_VERSION,
                "model": model_hash,
                "scorer": scorer_hash,
                "numerics": plan.numerics.model_dump(),
                "scores": plan.scores,
                "tokens": plan.tokens,
                "interventions": plan.interventions,
                "references": plan.references,
            }
        )
        return UnitIds(
            units=self,
            shared=shared,
            captions=tuple(caption.id for caption in plan.captions),
            slabs=tuple(slab.id for slab in self.slabs),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitIds:
    """The ids of a plan's units: what units share is hashed once, so that millions are quick."""

    units: Units
    shared: str
    captions: tuple[str, ...]
    slabs: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.units)

    def __getitem__(self, ordinal: int) -> str:
        """Return the id of a unit by its place in the plan's order."""
        return self.at(*self.units.place(ordinal))

    def at(self, caption: int, seed: int, draw: int, slab: int) -> str:
        """Return the id of a unit by the indexes of its caption, seed, noise draw and slab."""
        number = self.units.plan.seeds[seed]
        text = f"{self.shared}/{self.captions[caption]}/{self.slabs[slab]}/{number}/{draw}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def plan_units(plan: TracePlan, *, names: Mapping[Part, Sequence[str]], steps: int) -> Units:
    """Return the units of `plan`; `names` gives each part's components to trace.

    `steps` are the scheduler's evaluations of the UNet. PlanError: a window does not fit them.
    """
    windows = {Part.UNET: expand_windows(plan.windows, steps), Part.TEXT_ENCODER: ((0, steps),)}
    slabs = tuple(
        Slab(part=part, components=components, windows=part_windows)
        for part in plan.parts
        for part_windows in _slabs(windows[part], plan.slab_windows)
        for components in _slabs(names[part], plan.slab_components)
    )
    return Units(plan, slabs)


def _slabs(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    for start in range(0, len(items), size):
        yield tuple(items[start : start + size])


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One measure of one changed run beside that of its clean and corrupted runs."""

    component: str
    intervention: Intervention
    token: str
    """`all` for UNet components; a token role or the position for text-encoder components."""
    position: int | None
    """Text encoder: the first position that was changed."""
    token_text: str | None
    """Text encoder: the tokens that were changed, as the tokenizer writes them."""
    step_start: int
    step_stop: int
    against: str
    """The measure's name."""
    clean: float
    corrupted: float
    restored: float
    """Of the changed run, whatever the intervention."""

    def as_row(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)
