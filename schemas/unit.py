"""Units of work, computed from their place in a plan's order."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np

from schemas.caption import Caption
from schemas.component import Part
from schemas.content_id import content_id
from schemas.intervention import Intervention, TokenRole
from schemas.plan import TracePlan
from schemas.tables import SCHEMA_VERSION
from schemas.window import Window, expand_windows

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One caption x seed x noise draw x slab: the unit of work and of failure.

    The slab is every possible combination of its components, windows, tokens and interventions:
    the text encoder has no windows, the UNet no tokens, and only cross-attention can `swap`.
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
    """A plan's units in order, each built on request: a plan may have millions.

    Captions come first and slabs last, so that an interrupted run still covers a few captions
    completely.
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
        """Return `place` of many existing units, ten times faster."""
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
                "measures": plan.measures,
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
    """The ids of a plan's units; what units share is hashed once, so that millions are fast."""

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
    windows = {Part.DENOISER: expand_windows(plan.windows, steps), Part.TEXT_ENCODER: ((0, steps),)}
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
