"""The attack on an edit: its plan, its units of work and the table of what it measured."""

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from schemas.columns import COLUMNS, INTEGER, REAL, TEXT, column, estimate
from schemas.concept import Concept, ConceptKind
from schemas.content_id import content_id
from schemas.numerics import Numerics
from schemas.product import Product

ATTACK_VERSION = 2
"""Raised when a column or the meaning of one changes; part of every unit's id."""
SUMMARY = "attack.json"
"""File of an attack's folder that holds its rows as JSON."""


class Attack(StrEnum):
    """The kinds of text or embedding that an attack puts in the concept's place."""

    PLAIN = "plain"
    """The concept itself: no attack."""
    RANDOM = "random"
    """A random embedding: where the embedding attack starts."""
    EMBEDDING = "embedding"
    """The embedding that the attack found."""
    PROMPT = "prompt"
    """The words that the search found."""


class Side(StrEnum):
    """The model that is attacked."""

    UNEDITED = "unedited"
    EDITED = "edited"


@dataclass(frozen=True, slots=True, kw_only=True)
class InversionBudget:
    """The budget of the search for an embedding."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    steps: int = 100
    """Steps of Adam."""
    batch: int = 8
    """Draws of x0, eps and t a step."""
    images: int = 16
    """Images of the concept that the unedited model draws."""
    rate: float = 0.1
    """Adam's step, in standard deviations of the encoder's token embeddings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchBudget:
    """The budget of the search for a prompt."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    steps: int = 100
    """Steps; each encodes `candidates` prompts."""
    tokens: int = 4
    """K, the free tokens."""
    candidates: int = 64
    best: int = 64
    """Tokens among which a replacement is drawn, at each place."""


class AttackPlan(BaseModel):
    """Everything that determines an attack's rows, written once to its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edit: str
    """Content hash of the edit's delta."""
    model: str
    scorer: str
    names: dict[ConceptKind, tuple[str, ...]]
    """The names that an image may be taken for, by kind."""
    attacked: tuple[Concept, ...] = Field(min_length=1)
    attacks: tuple[Attack, ...] = Field(min_length=1)
    seeds: int = Field(ge=1)
    """Images of every prompt."""
    numerics: Numerics
    inversion: InversionBudget = InversionBudget()
    search: SearchBudget = SearchBudget()
    chunk_units: int = Field(default=1, ge=1)
    """Units that are committed together."""

    @property
    def kinds(self) -> tuple[Attack, ...]:
        """The attacks that are measured for a concept on each model, in the order of its rows."""
        wanted = {Attack.PLAIN, *self.attacks}
        if Attack.EMBEDDING in wanted:
            wanted.add(Attack.RANDOM)
        return tuple(attack for attack in Attack if attack in wanted)


@dataclass(frozen=True, slots=True)
class AttackUnits(Product[Concept]):
    """A plan's units: the concepts that are attacked, on both models."""

    plan: AttackPlan

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of concepts."""
        return (len(self.plan.attacked),)

    def at(self, *place: int) -> Concept:
        """Return the concept at a place."""
        return self.plan.attacked[place[0]]

    def ids(self, *, model_hash: str, scorer_hash: str) -> "AttackIds":
        """Return the units' ids: hashes of all that determines their rows."""
        shared = self.plan.model_dump(mode="json", exclude={"attacked", "chunk_units"})
        return AttackIds(self, content_id([ATTACK_VERSION, model_hash, scorer_hash, shared]))


@dataclass(frozen=True, slots=True)
class AttackIds(Product[str]):
    """The ids of a plan's units; what units share is hashed once."""

    units: AttackUnits
    shared: str

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the units' axes."""
        return self.units.sizes

    def at(self, *place: int) -> str:
        """Return the id of the unit at a place."""
        return content_id([self.shared, self.units.at(*place).model_dump(mode="json")])


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackRow:
    """One attack on a concept in one of the models: a row of `ATTACKS`."""

    unit_id: str
    concept: str
    kind: str
    side: str
    attack: str
    shown: int
    images: int
    success: float
    low: float
    high: float
    prompt: str
    steps: int
    seconds: float
    objective_before: float | None
    objective_after: float | None


_OBJECTIVE = "denoising loss of an embedding, or distance of a prompt's encoding"

ATTACKS = pa.schema(
    [
        COLUMNS["unit_id"],
        column("concept", TEXT, "the concept that is attacked"),
        column("kind", TEXT, "kind of the concept: object, style, ..."),
        column("side", TEXT, f"the model that is attacked: {', '.join(Side)}"),
        column("attack", TEXT, f"what stands in the concept's place: {', '.join(Attack)}"),
        column("shown", INTEGER, "images that show the concept", unit="images"),
        column("images", INTEGER, "images that were drawn", unit="images"),
        column("success", REAL, "shown / images", unit="fraction"),
        column("low", REAL, "lower end of success's 95 % interval", unit="fraction"),
        column("high", REAL, "upper end of success's 95 % interval", unit="fraction"),
        column("prompt", TEXT, "the prompt of the images"),
        column("steps", INTEGER, "steps of the search", unit="steps"),
        column("seconds", REAL, "time of the search alone", unit="s"),
        estimate("objective_before", f"before the search: {_OBJECTIVE}", unit=""),
        estimate("objective_after", f"after the search: {_OBJECTIVE}", unit=""),
    ],
    metadata={b"dqf.attack_version": str(ATTACK_VERSION)},
)
"""One row per concept, model and attack."""


def odd_attack(plan: AttackPlan) -> str:
    """Return the SQL condition for a row that no attack of a plan writes."""
    ordered = " AND ".join(
        f"{small} <= {large} + 1e-9"
        for small, large in (("0", "low"), ("low", "success"), ("success", "high"), ("high", "1"))
    )
    return (
        f"images <> {plan.seeds} OR shown NOT BETWEEN 0 AND images "
        f"OR abs(success - shown / images) > 1e-9 OR NOT ({ordered})"
    )
