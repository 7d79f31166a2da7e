"""The sets of a plan, found in its model: their components, steps and token roles."""

import re
from collections.abc import Iterator, Sequence
from itertools import combinations

from engine.model.components import Networks, Site, list_sites
from engine.tracing.interventions import component_groups
from schemas.component import PAPER_KINDS, Component, Part
from schemas.component_set import GRAMMAR, SET_ROLES, ComponentSet, PlannedSet, SetMember
from schemas.errors import PlanError
from schemas.intervention import TokenRole
from schemas.window import Window, expand_windows

HOLDS = {
    TokenRole.ALL: set(SET_ROLES),
    TokenRole.SUBJECT: {TokenRole.FIRST_SUBJECT, TokenRole.LAST_SUBJECT},
}
"""Token roles that hold the tokens of others."""


def find_sets(
    model: Networks, planned: Sequence[PlannedSet], *, steps: int
) -> tuple[ComponentSet, ...]:
    """Return the sets of a plan with their components; `steps` are the denoiser's evaluations.

    UnknownComponent: the model has no such component. PlanError: a set has a component twice at the
    same steps or tokens, every component of a part, or a place that its component cannot have.
    """
    sites = list_sites(model)
    sets = [
        ComponentSet(
            name=each.name,
            members=_members(sites, each, steps),
            attribute=each.attribute,
            curve=each.curve,
        )
        for each in planned
    ]
    for each in sets:
        _refuse_everything(each, [site.component for site in sites])
    return tuple(sets)


def _refuse_everything(component_set: ComponentSet, components: Sequence[Component]) -> None:
    """Raise PlanError if a set leaves out none of the components of a part."""
    names = {member.component.name for member in component_set.members}
    for part in Part:
        of_part = [c for c in components if c.part is part and c.kind in PAPER_KINDS]
        if of_part and {c.name for c in of_part if not c.is_dead} <= names:
            raise PlanError(
                f"set {component_set.name!r} has every component of the {part}, so that it is the "
                "whole run: leave some out"
            )


def _members(sites: Sequence[Site], planned: PlannedSet, steps: int) -> tuple[SetMember, ...]:
    members = [
        member
        for text in planned.components
        for member in _typed_members(sites, planned.name, text, steps)
    ]
    for one, other in combinations(members, 2):
        if one.component.name == other.component.name and _overlap(one, other):
            where = f"at {one.text.partition('@')[2]} and at {other.text.partition('@')[2]}"
            raise PlanError(
                f"set {planned.name!r} has {one.component.name} {where}, which overlap: leave one "
                "out"
            )
    order = {site.component.name: n for n, site in enumerate(sites)}
    return tuple(sorted(members, key=lambda m: (order[m.component.name], m.window, m.text)))


def _typed_members(sites: Sequence[Site], name: str, text: str, steps: int) -> Iterator[SetMember]:
    """Yield the members that COMPONENT@WHERE stands for: those of a range, or of all text entries,
    are single components of the set."""
    component, _, where = text.partition("@")
    for site in component_groups(sites, [component])[component]:
        window, token = _place(name, site.component, where, steps)
        yield SetMember(component=site.component, window=window, token=token)


def _place(
    name: str, component: Component, where: str, steps: int
) -> tuple[Window, TokenRole | None]:
    """Return the steps and the token role at which a component of a set is patched."""
    if component.part is Part.TEXT_ENCODER:
        roles = {role.value: role for role in SET_ROLES}
        if where and where not in roles:
            raise PlanError(
                f"set {name!r} has {component.name}@{where}, of a text encoder: after @ it takes "
                f"{', '.join(roles)}"
            )
        return (0, steps), roles[where] if where else TokenRole.LAST_SUBJECT
    if where and not re.fullmatch(r"all|[0-9]+:[0-9]+", where):
        raise PlanError(
            f"set {name!r} has {component.name}@{where}, of the denoiser: after @ it takes steps "
            f"START:STOP, as in {GRAMMAR}"
        )
    (window,) = expand_windows([where or "all"], steps)
    return window, None


def _overlap(one: SetMember, other: SetMember) -> bool:
    if one.token is None or other.token is None:
        return one.window[0] < other.window[1] and other.window[0] < one.window[1]
    held = HOLDS.get(one.token, set()), HOLDS.get(other.token, set())
    return one.token is other.token or one.token in held[1] or other.token in held[0]
