"""Units of work, computed from their place in a plan's order."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from schemas.caption import Caption
from schemas.component import Part
from schemas.component_set import ComponentSet, names_of
from schemas.content_id import content_id
from schemas.exact_states import state_name
from schemas.intervention import Intervention, PatchKind, TokenRole
from schemas.numerics import DEFAULT_NOISE
from schemas.plan import TracePlan
from schemas.product import Product
from schemas.tables import SCHEMA_VERSION
from schemas.window import Window, expand_windows

T = TypeVar("T")
MARGIN = "margin"
"""The measure that compares the options of an attribute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One caption x seed x noise draw x noise x slab: the unit of work and of failure.

    The slab is every possible combination of its components, windows, tokens, interventions and
    kinds of patch: the text encoder has no windows, the denoiser no tokens, only cross-attention
    can `swap`, and only what adds to its input has a contribution. A slab of sets has every
    combination of its sets, interventions and kinds of patch.
    """

    caption: Caption
    seed: int
    draw: int
    noise_sigmas: float = DEFAULT_NOISE
    """Standard deviation of the noise in sigmas; 0 where it is not given in sigmas."""
    part: Part
    components: tuple[str, ...]
    """Names; consecutive components that are restored together are named FIRST..LAST."""
    windows: tuple[Window, ...]
    sets: tuple[ComponentSet, ...] = ()
    """Components that are patched together, each set in one run."""
    states: frozenset[str] | None = None
    """Names of the states that are patched (`state_name`); None for every combination."""
    tokens: tuple[TokenRole, ...] = (TokenRole.LAST_SUBJECT,)
    interventions: tuple[Intervention, ...] = (Intervention.RESTORE,)
    patches: tuple[PatchKind, ...] = (PatchKind.STATE,)
    references: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    """Targets that say other options of the attribute."""

    def has(self, component: str, *, window: Window, token: str) -> bool:
        """Return whether a component is patched at a window or token of the unit."""
        if self.states is None:
            return True
        return state_name(self.part, component, window=window, token=token) in self.states


@dataclass(frozen=True, slots=True, kw_only=True)
class Slab:
    """Components and windows of one part, or sets, that every unit of it traces together."""

    part: Part
    components: tuple[str, ...]
    windows: tuple[Window, ...]
    sets: tuple[ComponentSet, ...] = ()

    @property
    def id(self) -> str:
        """Content hash of this slab."""
        fields = {"part": self.part, "components": self.components, "windows": self.windows}
        if self.sets:  # slabs of components keep the ids that they had before there were sets
            return content_id({**fields, "sets": [each.content for each in self.sets]})
        return content_id(fields)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its components or sets."""
        return (*self.components, *names_of(self.sets))


@dataclass(frozen=True, slots=True)
class Units(Product[Unit]):
    """A plan's units in order.

    Captions come first and slabs last, so that an interrupted run still covers a few captions
    completely.
    """

    plan: TracePlan
    slabs: tuple[Slab, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of captions, seeds, noise draws, noises and slabs."""
        plan, noises = self.plan, self.plan.numerics.sweep
        axes = len(plan.captions), len(plan.seeds), plan.noise_draws, len(noises)
        return *axes, len(self.slabs)

    def at(self, *place: int) -> Unit:
        """Return a unit by the indexes of its caption, seed, noise draw, noise and slab."""
        caption, seed, draw, noise, number = place
        plan, slab = self.plan, self.slabs[number]
        return Unit(
            caption=plan.captions[caption],
            seed=plan.seeds[seed],
            draw=draw,
            noise_sigmas=plan.numerics.sweep[noise],
            part=slab.part,
            components=slab.components,
            windows=slab.windows,
            sets=tuple(
                each
                for each in slab.sets
                if each.attribute in (None, plan.captions[caption].attribute)
            ),
            states=plan.exact_states
            and plan.exact_states.of(plan.captions[caption].attribute, slab.part),
            tokens=plan.tokens,
            interventions=plan.interventions,
            patches=plan.patches,
            references=plan.references,
            alternatives=alternatives(plan, plan.captions[caption]),
        )

    def ids(self, *, model_hash: str, scorer_hash: str) -> "UnitIds":
        """Return the units' ids: hashes of all that determines their scores."""
        plan = self.plan
        shared = {
            "version": SCHEMA_VERSION,
            "model": model_hash,
            "scorer": scorer_hash,
            "measures": plan.measures,
            "tokens": plan.tokens,
            "interventions": plan.interventions,
            "patches": plan.patches,
            "references": plan.references,
            "options": plan.options,
            **({"screen": plan.screen} if plan.screen else {}),
            **({"exact_states": plan.exact_states.content} if plan.exact_states else {}),
        }
        numerics = [plan.numerics.at(noise).model_dump() for noise in plan.numerics.sweep]
        return UnitIds(
            units=self,
            shared=tuple(content_id({**shared, "numerics": each}) for each in numerics),
            captions=tuple(caption.id for caption in plan.captions),
            slabs=tuple(slab.id for slab in self.slabs),
        )


def alternatives(plan: TracePlan, caption: Caption) -> tuple[str, ...]:
    """Return the targets that a caption's margin compares with; PlanError as that of a caption."""
    if MARGIN not in plan.measures:
        return ()
    return caption.alternatives(plan.options.get(caption.attribute, ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitIds(Product[str]):
    """The ids of a plan's units; what units share is hashed once, so that millions are fast."""

    units: Units
    shared: tuple[str, ...]
    """One hash for each noise."""
    captions: tuple[str, ...]
    slabs: tuple[str, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the units' axes."""
        return self.units.sizes

    def at(self, *place: int) -> str:
        """Return a unit's id by the indexes of its caption, seed, noise draw, noise and slab."""
        caption, seed, draw, noise, slab = place
        number = self.units.plan.seeds[seed]
        text = f"{self.shared[noise]}/{self.captions[caption]}/{self.slabs[slab]}/{number}/{draw}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def plan_units(
    plan: TracePlan,
    *,
    names: Mapping[Part, Sequence[str]],
    steps: int,
    sets: Sequence[ComponentSet] = (),
) -> Units:
    """Return the units of `plan`; `names` gives each part's components to trace, and `sets` what is
    patched together.

    `steps` are the scheduler's evaluations of the denoiser. PlanError: a window does not fit them.
    """
    windows = {Part.DENOISER: expand_windows(plan.windows, steps), Part.TEXT_ENCODER: ((0, steps),)}
    slabs = tuple(
        Slab(part=part, components=components, windows=part_windows)
        for part in plan.parts
        for part_windows in _slabs(windows[part], plan.slab_windows)
        for components in _slabs(names[part], plan.slab_components)
    )
    return Units(plan, (*slabs, *_set_slabs(sets, plan.slab_components)))


def _set_slabs(sets: Sequence[ComponentSet], size: int) -> Iterator[Slab]:
    """Yield slabs of sets of one part; in each, every attribute has `size` sets at most and one at
    least."""
    for part in Part:
        of_part = [each for each in sets if each.part is part]
        by_attribute: dict[str | None, list[ComponentSet]] = {}
        for each in of_part:
            by_attribute.setdefault(each.attribute, []).append(each)
        counts = [len(of_attribute) for of_attribute in by_attribute.values()] or [0]
        slabs = min(-(-max(counts) // size), *counts)
        for number in range(slabs):
            taken = [
                each
                for of in by_attribute.values()
                for each in of[len(of) * number // slabs : len(of) * (number + 1) // slabs]
            ]
            yield Slab(part=part, components=(), windows=(), sets=tuple(taken))


def _slabs(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    for start in range(0, len(items), size):
        yield tuple(items[start : start + size])
