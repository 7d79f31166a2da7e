"""Whether an edit meets limits: judged on the batch, or on each of its concepts.

The bound of a batch is the worse of two: that of a bootstrap over names, since images of one name
are alike, and the exact bound over all images, since a bootstrap of zeros is zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.statistics.exact import images_needed, lower_bound, upper_bound
from jobs.evaluation.by_concept import ConceptResult
from schemas.errors import ConceptError
from schemas.evaluation import Group
from schemas.results import STILL_RECOGNISED, GroupResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The shares that a user accepts; None: not judged."""

    max_still_recognised: float | None = None
    min_kept: float | None = None
    each: bool = False
    """Whether every concept must be shown to be within `max_still_recognised`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """One limit and whether it is met."""

    is_met: bool
    sentence: str


def check_limits(limits: Limits) -> None:
    """Raise ConceptError if a limit cannot be judged."""
    if limits.each and limits.max_still_recognised is None:
        raise ConceptError("--each needs a limit for each concept: give --max-still-recognised")
    for option, value in (
        ("--max-still-recognised", limits.max_still_recognised),
        ("--min-kept", limits.min_kept),
    ):
        if value is not None and not 0 < value < 1:
            raise ConceptError(
                f"{option} must be between 0 and 1, not {value:g}: no number of images shows "
                "a share of exactly 0 or 1"
            )


def judge(
    groups: Sequence[GroupResult], concepts: Sequence[ConceptResult], limits: Limits
) -> list[Judgment]:
    """Return a judgment for each limit; an unmeasured share does not meet it."""
    by_group = {group.group: group for group in groups}
    found: list[Judgment] = []
    if limits.max_still_recognised is not None:
        if limits.each:
            found.append(_each(concepts, limits.max_still_recognised))
        else:
            found.append(_batch(by_group.get(STILL_RECOGNISED), limits.max_still_recognised))
    if limits.min_kept is not None:
        found.append(_kept(by_group.get(Group.KEPT), limits.min_kept))
    return found


def bound_above(group: GroupResult | None) -> float | None:
    """Return the upper bound of the share of a group's images that are right; None without any."""
    right, count = _counts(group)
    exact = upper_bound(count, right)
    if group is None or exact is None:
        return None
    return max(exact, group.of_right_high if group.of_right_high is not None else 0.0)


def bound_below(group: GroupResult | None) -> float | None:
    """Return the lower bound of the share of a group's images that are right; None without any."""
    right, count = _counts(group)
    exact = lower_bound(count, right)
    if group is None or exact is None:
        return None
    return min(exact, group.of_right_low if group.of_right_low is not None else 1.0)


def _counts(group: GroupResult | None) -> tuple[int, int]:
    if group is None or group.of_right is None or not group.right_before:
        return 0, 0
    return group.right_before, round(group.of_right * group.right_before)


def _batch(group: GroupResult | None, limit: float) -> Judgment:
    bound = bound_above(group)
    if bound is None:
        return Judgment(is_met=False, sentence=_unmeasured("still recognized"))
    is_met = bound <= limit
    return Judgment(
        is_met=is_met,
        sentence=f"{_met(is_met)}: still recognized in at most {bound:.3f} of images (95 %), "
        f"the limit is {limit:g}",
    )


def _each(concepts: Sequence[ConceptResult], limit: float) -> Judgment:
    above = [c for c in concepts if c.at_most is None or c.at_most > limit]
    if not concepts:
        return Judgment(is_met=False, sentence=_unmeasured("still recognized"))
    if not above:
        return Judgment(
            is_met=True,
            sentence=f"met: each of {len(concepts)} concepts is still recognized in at most "
            f"{limit:g} of its images (95 %)",
        )
    few = sum(c.at_most is not None and c.recognized / c.right_before <= limit for c in above)
    needed = (
        f"; for {few} of them there are too few images, of which {images_needed(limit)} without "
        "the concept are enough"
        if few
        else ""
    )
    return Judgment(
        is_met=False,
        sentence=f"NOT met: {len(above)} of {len(concepts)} concepts are not shown to be "
        f"recognized in at most {limit:g} of their images, as {above[0].concept!r}{needed}",
    )


def _kept(group: GroupResult | None, limit: float) -> Judgment:
    bound = bound_below(group)
    if bound is None:
        return Judgment(is_met=False, sentence=_unmeasured("kept"))
    is_met = bound >= limit
    return Judgment(
        is_met=is_met,
        sentence=f"{_met(is_met)}: kept names are recognized in at least {bound:.3f} of images "
        f"(95 %), the limit is {limit:g}",
    )


def _met(is_met: bool) -> str:
    return "met" if is_met else "NOT met"


def _unmeasured(what: str) -> str:
    return f"NOT met: {what} is not measured, as no unedited image shows what its prompt says"
