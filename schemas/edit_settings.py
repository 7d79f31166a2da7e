"""The settings of an edit: all that determines the edited weights besides model and concepts."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from schemas.concept import MAX_WEIGHT, Concept

Weight = Annotated[float, Field(ge=0, le=MAX_WEIGHT)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleWeights:
    """Weight of each token role in a prompt, however many positions have the role.

    The published notebook counts positions: 287 of its 291 pairs are EOS and pads.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    before: Weight = 0.0
    """All tokens before the subject's last, including the start token, together."""
    subject: Weight = 1.0
    """The last token of the subject."""
    words: Weight = 1.0
    """All words after the subject, together."""
    eos: Weight = 1.0
    """The first end-of-text token."""
    pads: Weight = 1.0
    """Evenly spaced positions after the first end-of-text token, together."""


KEPT_ROLES = RoleWeights(before=1.0)
"""Weights that keep a kept prompt at every position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSettings:
    """Everything that determines the edited weights besides model, concepts and prompts."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    components: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "text_encoder.layers.0.self_attn",
    )
    """Components to edit, which are solved in the network's order."""
    objective: Literal["residual", "published"] = "residual"
    """The objective that is minimized; with `published` (see its module) only `ridge` has an
    effect."""
    ridge: Annotated[float, Field(gt=0, le=MAX_WEIGHT)] = 1e-2
    """lambda: penalty on the change in every direction, in units of the keys."""
    preserve: Weight = 3.0
    """mu: weight of the outputs for kept names relative to those for the concepts."""
    general: Weight = 0.0
    """nu: weight of the outputs for general captions, by the covariance of their keys."""
    forms: bool = True
    """Whether plurals, articles, capitals and possessives of a concept are edited with it."""
    embeddings: bool = False
    """Whether the concepts' own token embeddings move to their replacements' first."""
    exactly: tuple[Concept, ...] = ()
    """Names that must not change at all: the keys of their prompts are projected out."""
    keep: tuple[Concept, ...] = ()
    """Names that are kept besides the phrasebook's, with the same weight."""
    roles: RoleWeights = field(default_factory=RoleWeights)
    """Weights of a concept prompt's tokens."""
    preserve_roles: RoleWeights = KEPT_ROLES
    """Weights of a kept prompt's tokens."""

    @property
    def kept_concepts(self) -> tuple[Concept, ...]:
        """All names that are kept besides the phrasebook's."""
        return (*self.exactly, *self.keep)
