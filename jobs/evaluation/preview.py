"""The bounds that a planned evaluation could reach for each concept, before any image is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.statistics.exact import images_needed, upper_bound
from jobs.evaluation.by_concept import MAX_STILL_RECOGNISED
from schemas.evaluation import EFFICACY, EvaluationPlan, Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptPreview:
    """The strongest result that a planned evaluation could give for one concept."""

    concept: str
    kind: str
    prompts: int
    images: int
    """Number of edited images of prompts that say the concept."""
    lowest_bound: float | None
    """Upper bound of the share that shows it, if every unedited image and no edited one does."""
    can_be_erased: bool
    """Whether that bound is within the limit."""


def preview(plan: EvaluationPlan, *, limit: float = MAX_STILL_RECOGNISED) -> list[ConceptPreview]:
    """Return one preview per concept, in the plan's order."""
    edited = {(kind, name) for kind, names in plan.concepts.items() for name in names}
    return [
        _preview(subject, seeds=len(plan.seeds), limit=limit)
        for subject in plan.subjects
        if subject.kind and (subject.kind, subject.name) in edited
    ]


def _preview(subject: Subject, *, seeds: int, limit: float) -> ConceptPreview:
    prompts = sum(prompt.group in EFFICACY for prompt in subject.prompts)
    lowest = upper_bound(0, prompts * seeds)
    return ConceptPreview(
        concept=subject.name,
        kind=str(subject.kind),
        prompts=prompts,
        images=prompts * seeds,
        lowest_bound=lowest,
        can_be_erased=lowest is not None and lowest <= limit,
    )


def outlook(
    plan: EvaluationPlan, concepts: Sequence[ConceptPreview], *, limit: float = MAX_STILL_RECOGNISED
) -> str:
    """Return one sentence: how many images are drawn, and how many concepts could be shown to be
    within the limit, with the number of seeds that all of them need."""
    images = 2 * len(plan.seeds) * sum(len(subject.prompts) for subject in plan.subjects)
    able = sum(concept.can_be_erased for concept in concepts)
    needed = images_needed(limit)
    fewest = min((concept.prompts for concept in concepts if concept.prompts), default=None)
    advice = (
        f"; {needed} images of each without the concept are enough: --images {-(-needed // fewest)}"
        if able < len(concepts) and fewest
        else ""
    )
    return (
        f"{images} images before and after the edit; if none shows its concept, {able} of "
        f"{len(concepts)} concepts are shown to be recognized in at most {limit:g}{advice}"
    )
