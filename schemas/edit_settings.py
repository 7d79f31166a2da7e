"""The settings of an edit: all that determines the edited weights besides model and concepts."""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import ConfigDict

from schemas.concept import Concept


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleWeights:
    """How much each role of a token counts in one prompt, whatever its number of positions.

    The published notebook counts positions: 287 of its 291 pairs are EOS and pads.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    before: float = 0.0
    """The tokens before the subject's last, a start token among them, together."""
    subject: float = 1.0
    """The last token of the subject."""
    words: float = 1.0
    """The words after it, together."""
    eos: float = 1.0
    """The first end-of-text token."""
    pads: float = 1.0
    """Evenly spaced positions after that, together."""


KEPT_ROLES = RoleWeights(before=1.0)
"""Weights by which a kept prompt is kept at every position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSettings:
    """Everything that determines the edited weights besides model, concepts and prompts."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    components: tuple[str, ...] = ("text_encoder.layers.0.self_attn",)
    """What is edited; solved in the network's order."""
    objective: Literal["residual", "published"] = "residual"
    """What is minimized; with `published` (see its module) only `ridge` has an effect."""
    ridge: float = 1e-2
    """lambda: how much the change is kept small in every direction, in units of the keys."""
    preserve: float = 3.0
    """mu: how much the outputs at what no concept says count besides those at the concepts."""
    general: float = 0.0
    """nu: the same for general captions, whatever they say: an anchor by their covariance."""
    exactly: tuple[Concept, ...] = ()
    """What must not change at all: its prompts' keys are projected out. Targets are not read."""
    roles: RoleWeights = field(default_factory=RoleWeights)
    """Weights of a concept prompt's tokens."""
    preserve_roles: RoleWeights = KEPT_ROLES
    """Weights of a kept prompt's tokens."""
