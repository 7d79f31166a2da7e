"""A trace plan: the file that fully determines a run."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from schemas.caption import Caption
from schemas.caption_filter import CaptionFilter
from schemas.checked_model import DecimalModel
from schemas.component import PAPER_KINDS, Kind, Part
from schemas.component_set import PlannedSet, as_planned
from schemas.exact_states import ExactStates
from schemas.intervention import Intervention, PatchKind, TokenRole
from schemas.located_sets import LocatedSets
from schemas.numerics import Numerics
from schemas.screen import Screen

REPEATABLE = (
    "captions", "parts", "kinds", "components", "windows", "tokens", "interventions", "patches",
    "measures", "seeds",
)  # fmt: skip
"""Fields of a plan of which every combination is scored."""


class TracePlan(DecimalModel):
    """Everything that determines a run's scores, written once to the run's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "emoji-sd"
    """A built-in name, a diffusers folder or a hub id, with `@COMMIT` once it is checked."""
    scorer: str
    """`builtin:emoji-sd`, an open_clip folder, or `ARCHITECTURE:PRETRAINED`."""
    captions: tuple[Caption, ...] = Field(min_length=1)
    probe: str | None = None
    """The built-in probe set that the captions are of, as NAME@VERSION; None for other captions."""
    parts: tuple[Part, ...] = Field(default=(Part.DENOISER, Part.TEXT_ENCODER), min_length=1)
    kinds: tuple[Kind, ...] = Field(default=PAPER_KINDS, min_length=1)
    """Kinds of component to trace."""
    components: tuple[str, ...] | None = None
    """Names of the components to trace, whatever their kind; by default all of `kinds`. Empty: only
    sets are traced."""
    sets: Annotated[tuple[PlannedSet, ...], BeforeValidator(as_planned)] = ()
    """Components that are patched together, besides the single ones."""
    located_sets: LocatedSets | None = None
    """How the sets were chosen, if `dqf trace sets RUN` chose them."""
    consecutive: int = Field(default=1, ge=1)
    """Components of one kind, next to one another in the network, that are restored together."""
    windows: tuple[str, ...] = Field(default=("all",), min_length=1)
    """Denoiser trace: when a component is restored, as `schemas.window.expand_windows` reads it."""
    tokens: tuple[TokenRole, ...] = Field(default=(TokenRole.LAST_SUBJECT,), min_length=1)
    """Text-encoder trace: where a component is restored."""
    interventions: tuple[Intervention, ...] = Field(default=(Intervention.RESTORE,), min_length=1)
    patches: tuple[PatchKind, ...] = Field(default=(PatchKind.STATE,), min_length=1)
    """Kinds of patch; only components that add to their input have a contribution."""
    references: tuple[str, ...] = ()
    """Captions whose clean runs are the source runs of `mean`, `resample` and `other-caption`."""
    measures: tuple[str, ...] = Field(default=("caption", "target"), min_length=1)
    """Names of the measures that every image is scored by."""
    options: Mapping[str, tuple[Annotated[str, Field(min_length=1)], ...]] = {}
    """The words that each attribute may have, which the margin compares; by default the subjects of
    the plan's captions."""
    screen: Screen | None = Field(
        default=None,
        exclude_if=lambda screen: screen is None,  # units without one keep their ids
    )
    """Screen the patched runs by a gradient pass in place of sampling them."""
    exact_states: ExactStates | None = None
    """The states to trace, attribute by attribute, if a screened run's ranking chose them; by
    default all of the components at every window or token."""
    known: str | None = None
    """MEASURE:SCORE, the least score of a caption's clean run for it to be read by default; every
    caption is traced."""
    min_te: float | None = None
    """The least total effect of a caption for it to be read by default."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(default=(0,), min_length=1)
    """Seeds of the initial latent z_T."""
    noise_draws: int = Field(default=1, ge=1, le=1_000_000)
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
        """Refuse repeated values: their scores would count twice."""
        for name in REPEATABLE:
            values = getattr(self, name) or ()
            if len(set(values)) < len(values):
                twice = next(value for value in values if values.count(value) > 1)
                shown = twice.caption if isinstance(twice, Caption) else str(twice)
                raise ValueError(f"{name} has {shown!r} twice: leave one out")
        names = [(each.name, each.attribute) for each in self.sets]
        for name, attribute in names:
            if names.count((name, attribute)) > 1 or (attribute and (name, None) in names):
                raise ValueError(f"sets has {name!r} twice: leave one out")
        CaptionFilter.parsed(self.known, self.min_te, measures=self.measures)
        if {TokenRole.WORDS, TokenRole.EACH} <= set(self.tokens):
            raise ValueError("tokens has `words` and `each`, which holds them: leave one out")
        return self

    @model_validator(mode="after")
    def _has_its_exact_states(self) -> "TracePlan":
        """Refuse exact states that the rest of the plan does not trace, and only these."""
        chosen = self.exact_states
        if chosen is None:
            return self
        if self.screen or self.sets or self.components is None:
            raise ValueError("exact_states are of components, without a screen and without sets")
        by_part = {Part.DENOISER: self.windows, Part.TEXT_ENCODER: self.tokens}
        chosen.check(
            attributes=[caption.attribute for caption in self.captions],
            components=self.components,
            places={part: by_part[part] for part in self.parts},
        )
        if {caption.id for caption in self.captions} & {*chosen.ranked_captions}:
            raise ValueError("exact_states were ranked on a caption of the plan: leave it out")
        return self

    @model_validator(mode="after")
    def _sweeps_noise(self) -> "TracePlan":
        """Refuse several noises in sigmas where no noise is measured in them."""
        numerics = self.numerics
        if isinstance(numerics.noise_sigmas, tuple) and numerics.sweep != numerics.noise_sigmas:
            other = (
                "corruption counterfactual adds no noise"
                if numerics.corruption != "noise"
                else "noise_absolute takes its place"
            )
            raise ValueError(
                f"noise_sigmas has several values, but {other}: leave one of the two out"
            )
        return self
