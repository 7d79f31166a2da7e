"""Checks of a plan's sets, once their components are known."""

from collections.abc import Sequence
from itertools import product

from schemas.component import Part
from schemas.component_set import ComponentSet
from schemas.errors import PlanError
from schemas.plan import TracePlan


def check_sets(plan: TracePlan, sets: Sequence[ComponentSet]) -> None:
    """Raise PlanError if a set is never patched, no caption has its attribute, captions of an
    attribute have no set of a part that others have, or the noise passes its text encoder by."""
    attributes = dict.fromkeys(caption.attribute for caption in plan.captions)
    for each in sets:
        if each.attribute is not None and each.attribute not in attributes:
            raise PlanError(
                f"set {each.name!r} is for attribute {each.attribute!r}, which no caption has: "
                f"there are {', '.join(attributes)}"
            )
        _check_runs(plan, each)
    for part in Part:
        having = {each.attribute for each in sets if each.part is part}
        lacking = [name for name in attributes if having and not having & {None, name}]
        if lacking:
            raise PlanError(
                f"captions of attribute {lacking[0]!r} have no set of the {part}, as others have: "
                "leave them out, or trace them in a run of their own"
            )


def _check_runs(plan: TracePlan, each: ComponentSet) -> None:
    cases = product(plan.interventions, plan.patches, plan.captions)
    if not any(each.allows(*case) for case in cases):
        raise PlanError(
            f"set {each.name!r} cannot be used with --intervention "
            f"{', '.join(plan.interventions)} and --patch {', '.join(plan.patches)}: every "
            "component of a set has to allow the intervention, and one has to have a contribution"
        )
    is_of_text = any(member.token is not None for member in each.members)
    if is_of_text and plan.numerics.noise_at == "output":
        raise PlanError(
            f"set {each.name!r} has components of a text encoder, in which noise at its output "
            "changes nothing: leave out --noise-at output"
        )
