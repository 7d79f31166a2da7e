"""The measures of an evaluation by concept, with exact bounds and a verdict in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.statistics.exact import upper_bound
from jobs.evaluation.measures import images_of
from jobs.runs.evaluation_run import EDIT, EvaluationRun
from schemas.evaluation import BY_CONCEPT

MAX_STILL_RECOGNISED, MIN_KEPT = 0.05, 0.95
"""The limits by which verdicts are given where a user names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptResult:
    """The measures of one concept; shares are over the images that the unedited model draws right.

    Null where there is no such image.
    """

    concept: str
    kind: str
    prompts: int
    images: int
    """Number of edited images of prompts that say the concept."""
    right_before: int
    """Number of prompts and seeds whose unedited image shows the concept."""
    recognized: int
    """Number of these whose edited image still shows it."""
    still_recognised: float | None
    at_most: float | None
    """Exact upper bound of that share, one-sided at 95 % (Clopper and Pearson 1934): 0 of 15 images
    leave 0.18, 0 of 59 leave 0.05."""
    replacement: str | None
    """Replacement of an updated concept."""
    replacement_drawn: float | None
    """Share of images that show it."""
    neighbors: int
    """Number of kept names that have this concept as their nearest."""
    moved: tuple[str, ...]
    """The neighbors that lose more than half of their right images."""
    verdict: str


def results_by_concept(
    run: EvaluationRun, edit: str = EDIT, *, limit: float = MAX_STILL_RECOGNISED
) -> list[ConceptResult]:
    """Return one result per concept, the worst first: by the share, then by its bound."""
    with images_of(run, edit) as connection:
        rows = connection.sql(BY_CONCEPT).to_arrow_table().to_pylist()
    found = [_result(row, limit) for row in rows]
    return sorted(found, key=_badness, reverse=True)


def _badness(result: ConceptResult) -> tuple[float, float, int]:
    """Return the sort key of a result; an unmeasured share sorts before a share of 0."""
    share = result.still_recognised
    return (
        share if share is not None else 0.0,
        result.at_most if result.at_most is not None else 1.0,
        len(result.moved),
    )


def _result(row: Mapping[str, Any], limit: float) -> ConceptResult:
    right, recognized = row["right_before"], row["recognized"]
    at_most, moved = upper_bound(recognized, right), tuple(row["moved"])
    return ConceptResult(
        concept=row["concept"],
        kind=row["kind"],
        prompts=row["prompts"],
        images=row["images"],
        right_before=right,
        recognized=recognized,
        still_recognised=recognized / right if right else None,
        at_most=at_most,
        replacement=row["replacement"],
        replacement_drawn=row["replaced"] / row["replaceable"] if row["replaceable"] else None,
        neighbors=row["neighbors"],
        moved=moved,
        verdict=_verdict(recognized, right, limit) + _moving(moved),
    )


def _verdict(recognized: int, right: int, limit: float) -> str:
    at_most = upper_bound(recognized, right)
    if at_most is None:
        return "not measured: no unedited image shows it"
    if at_most <= limit:
        return "erased"
    if recognized / right > limit:
        return "still recognized"
    return "rarely recognized, but too few images" if recognized else "never seen, too few images"


def _moving(moved: tuple[str, ...]) -> str:
    return f"; moves {', '.join(moved)}" if moved else ""
