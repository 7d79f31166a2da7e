"""Sets of components that are patched together, each at its own steps or tokens."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.caption import Caption
from schemas.component import Component, Part
from schemas.errors import PlanError
from schemas.intervention import Intervention, PatchKind, TokenRole, allows
from schemas.window import Window

GRAMMAR = "NAME=COMPONENT[@WHERE],COMPONENT[@WHERE],..."
NAME = re.compile(r"\w[\w-]*")
SEVERAL = "several"
"""The token of a set whose members are patched at different tokens."""
SET_ROLES = tuple(role for role in TokenRole if role not in (TokenRole.WORDS, TokenRole.EACH))
"""Token roles that stand for one patched run."""


class Curve(StrEnum):
    """How the components of a set were chosen, where `dqf trace sets RUN` chose them."""

    TOP = "top"
    """The first of a ranking."""
    RANDOM = "random"
    """Drawn from the ranking: as many, of the same kinds, as those of a set of the first."""
    GREEDY = "greedy"
    """The first of a ranking without those that the others make superfluous."""


class PlannedSet(BaseModel):
    """A set of components as a plan names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    components: tuple[str, ...] = Field(min_length=1)
    """COMPONENT, or COMPONENT@WHERE: steps START:STOP in the denoiser, a token role in a text
    encoder. Their order has no meaning."""
    attribute: str | None = None
    """The attribute of the captions that are traced with the set; None for all captions."""
    curve: Curve | None = None

    @field_validator("name")
    @classmethod
    def _is_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"a set's name is of letters, digits, _ and -, not {name!r}")
        return name

    @field_validator("components")
    @classmethod
    def _sorted(cls, components: tuple[str, ...]) -> tuple[str, ...]:
        for component in components:
            if components.count(component) > 1:
                raise ValueError(f"a set has {component!r} twice: leave one out")
        return tuple(sorted(components))


def read_set(text: str) -> dict[str, object]:
    """Return the fields of a set that is typed as NAME=COMPONENT,COMPONENT; PlanError if it is
    not."""
    name, equals, listed = text.partition("=")
    components = [component.strip() for component in listed.split(",")]
    if not equals or not all(components):
        raise PlanError(f"a set is {GRAMMAR}, not {text!r}")
    return {"name": name.strip(), "components": components}


def as_planned(sets: Any) -> Any:
    """Return the sets of a plan file, where a mapping may name lists of components, as a list."""
    if not isinstance(sets, Mapping):
        return sets
    listed = cast(Mapping[Any, Any], sets)
    return [{"name": str(name), "components": of_set} for name, of_set in listed.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMember:
    """A component of a set, and where it is patched."""

    component: Component
    window: Window
    """In a text encoder every step."""
    token: TokenRole | None = None
    """None in the denoiser."""

    @property
    def text(self) -> str:
        """Name, and steps or token role."""
        where = f"{self.window[0]}:{self.window[1]}" if self.token is None else self.token.value
        return f"{self.component.name}@{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentSet:
    """Components that are patched together in one run."""

    name: str
    members: tuple[SetMember, ...]
    """In network order, those of the denoiser first."""
    attribute: str | None = None
    curve: Curve | None = None

    @property
    def part(self) -> Part:
        """The text encoder if all members are its; the denoiser's runs may be patched in both."""
        parts = {member.component.part for member in self.members}
        return Part.TEXT_ENCODER if parts == {Part.TEXT_ENCODER} else Part.DENOISER

    @property
    def window(self) -> Window:
        """The steps from the first to the last at which a member is patched."""
        starts, stops = zip(*(member.window for member in self.members), strict=True)
        return min(starts), max(stops)

    @property
    def token(self) -> str:
        """The members' token role, `all` if they are the denoiser's."""
        tokens = {"all" if m.token is None else m.token.value for m in self.members}
        return tokens.pop() if len(tokens) == 1 else SEVERAL

    @property
    def content(self) -> list[object]:
        """All that determines its scores, for hashes."""
        return [self.name, [member.text for member in self.members], self.attribute]

    def allows(self, intervention: Intervention, patch_kind: PatchKind, caption: Caption) -> bool:
        """Return whether an intervention makes sense on the set for a caption."""
        if self.attribute not in (None, caption.attribute):
            return False
        components = [member.component for member in self.members]
        is_state = not any(component.has_contribution for component in components)
        # Of a ranking by contribution every set is asked for, also of what adds its whole output.
        if patch_kind is PatchKind.CONTRIBUTION and is_state and self.curve is None:
            return False
        return all(
            allows(intervention, own_patch(patch_kind, component), component, caption)
            for component in components
        )


def own_patch(patch_kind: PatchKind, component: Component) -> PatchKind:
    """Return the kind of patch of a component of a set: one that adds its whole output has a state
    alone, which is its contribution."""
    return patch_kind if component.has_contribution else PatchKind.STATE


def names_of(sets: Sequence[ComponentSet]) -> list[str]:
    """Return the names of sets, each once."""
    return list(dict.fromkeys(each.name for each in sets))
