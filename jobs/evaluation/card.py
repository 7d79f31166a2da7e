"""The card of an edit: one page in Markdown that says what was edited, how well, and its limits."""

import re
from collections.abc import Iterable, Iterator, Sequence

from engine.editing.forms import form_texts
from jobs.evaluation.by_concept import ConceptResult
from jobs.evaluation.judgment import Judgment, bound_above, bound_below
from jobs.runs.evaluation_run import EDIT, EvaluationRun
from jobs.runs.progress import unscored
from schemas.concept import Concept
from schemas.evaluation import Group
from schemas.manifest import EditManifest
from schemas.printable import printable
from schemas.results import STILL_RECOGNISED, GroupResult

CAVEATS = (
    "The edit changes what the words of a concept mean to the model. Whoever holds the weights can "
    "undo it, or reach the concept by textual inversion, another encoder, an image or training.",
    "The scorer is the judge: what it does not see is not measured.",
    "Only the prompts of this evaluation were asked: descriptions, other languages and misspelled "
    "words were not.",
    "Bounds of single concepts take images as independent; those of the batch also resample names.",
)


def edit_card(
    manifest: EditManifest,
    run: EvaluationRun,
    *,
    groups: Sequence[GroupResult],
    concepts: Sequence[ConceptResult],
    judgments: Sequence[Judgment],
) -> str:
    """Return the card of an edit and its evaluation."""
    return "\n".join(
        [
            "# Edit card",
            "",
            *_table(("what", "value"), _facts(manifest, run)),
            "## Concepts",
            "",
            *_table(("concept", "becomes", "kind", "mode", "forms"), _concepts(manifest)),
            "## Figures",
            "",
            *([_cell(lacking), ""] if (lacking := unscored(run)) else []),
            "Over the images that the unedited model draws right; bounds are of 95 %, one-sided "
            "and exact for a concept.",
            "",
            *_table(("group", "names", "images", "share", "bound"), _groups(groups)),
            *_table(
                ("concept", "images", "still recognized", "at most", "replacement", "verdict"),
                map(_figures, concepts),
            ),
            *(["## Verdict", "", *(f"- {_cell(j.sentence)}" for j in judgments), ""]
              if judgments else []),
            "## Limits",
            "",
            *(f"- {caveat}" for caveat in CAVEATS),
            "",
        ]
    )  # fmt: skip


def _facts(manifest: EditManifest, run: EvaluationRun) -> Iterator[tuple[object, ...]]:
    settings, plan = manifest.settings, run.plan
    yield "model", manifest.model
    yield "model hash", manifest.model_hash
    yield "delta hash", plan.edits[EDIT]
    yield "components", ", ".join(settings.components)
    yield "matrices", ", ".join(m.name for m in manifest.matrices)
    yield (
        "settings",
        f"{settings.objective}, ridge {settings.ridge:g}, preserve {settings.preserve:g}, "
        f"general {settings.general:g}, forms {_on(settings.forms)}, token embeddings "
        f"{_on(settings.embeddings)}",
    )
    yield "kept exactly", ", ".join(concept.concept for concept in settings.exactly) or "nothing"
    yield "kept besides", ", ".join(concept.concept for concept in settings.keep) or "nothing"
    yield "made", f"{manifest.created}, dqf {manifest.versions.get('dqf', 'unknown')}"
    yield "scorer", plan.scorer
    yield (
        "images",
        f"{len(plan.seeds)} seeds, {plan.numerics.steps} steps, guidance "
        f"{plan.numerics.guidance:g}",
    )


def _on(is_on: bool) -> str:
    return "on" if is_on else "off"


def _concepts(manifest: EditManifest) -> Iterator[tuple[object, ...]]:
    for concept in manifest.concepts:
        forms = ", ".join(_forms(concept)) if manifest.settings.forms else ""
        yield (
            concept.concept, concept.replacement_text, concept.kind.value, concept.mode.value, forms
        )  # fmt: skip


def _forms(concept: Concept) -> list[str]:
    has_own_prompts_alone = bool(concept.prompts) and concept.forms is None
    return [] if has_own_prompts_alone else form_texts(concept)


def _groups(groups: Sequence[GroupResult]) -> Iterator[tuple[object, ...]]:
    for group in groups:
        if group.of_right is None:
            continue
        bound = ""
        if group.group == STILL_RECOGNISED:
            bound = f"at most {_share(bound_above(group))}"
        if group.group == Group.KEPT:
            bound = f"at least {_share(bound_below(group))}"
        yield group.group, group.names, group.right_before, _share(group.of_right), bound


def _figures(concept: ConceptResult) -> tuple[object, ...]:
    return (
        concept.concept, concept.right_before,
        f"{concept.recognized} ({_share(concept.still_recognised)})", _share(concept.at_most),
        _share(concept.replacement_drawn), concept.verdict,
    )  # fmt: skip


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield _row(head)
    yield _row(["---"] * len(head))
    yield from map(_row, rows)
    yield ""


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join('' if cell is None else _cell(str(cell)) for cell in cells)} |"


def _cell(text: str) -> str:
    """Return text that Markdown shows as it is: names may come from someone else's file."""
    return re.sub(r"([\\`*_{}\[\]<>#|!&~])", r"\\\1", printable(text))
