"""What a planned evaluation could show, said before an image is drawn."""

import pytest

from jobs.evaluation.preview import outlook, preview
from schemas.concept import ConceptKind
from schemas.evaluation import EvaluationPlan, EvaluationPrompt, Group, Subject
from schemas.numerics import Numerics


def subject(name: str, groups: list[Group]) -> Subject:
    return Subject(
        name=name,
        kind=ConceptKind.OBJECT,
        prompts=tuple(
            EvaluationPrompt(
                group=group, text=f"{name} {n}", template=f"{{name}} {n}", name=name,
                kind=ConceptKind.OBJECT,
            )
            for n, group in enumerate(groups)
        ),
    )  # fmt: skip


def plan(seeds: int) -> EvaluationPlan:
    return EvaluationPlan(
        edits={"edit": "0" * 16},
        model="emoji-sd",
        scorer="builtin:emoji-sd",
        concepts={ConceptKind.OBJECT: ("cat", "owl")},
        names={ConceptKind.OBJECT: ("cat", "owl", "bus")},
        subjects=(
            subject("cat", [Group.CONCEPT, Group.FORM, Group.POSITION, Group.STYLE]),
            subject("owl", [Group.CONCEPT, Group.PARAPHRASE]),
            subject("bus", [Group.KEPT]),
        ),
        seeds=tuple(range(seeds)),
        numerics=Numerics(steps=8, guidance=3.0),
    )


@pytest.mark.parametrize(
    ("seeds", "able"), [(19, [False, False]), (20, [True, False]), (30, [True, True])]
)
def test_a_concept_needs_59_images_that_say_it(seeds: int, able: list[bool]) -> None:
    concepts = preview(plan(seeds))
    assert [concept.concept for concept in concepts] == ["cat", "owl"]
    assert [concept.images for concept in concepts] == [3 * seeds, 2 * seeds]
    assert [concept.can_be_erased for concept in concepts] == able


def test_the_outlook_has_the_seeds_that_every_concept_needs() -> None:
    few, enough = plan(20), plan(30)
    assert "280 images" in outlook(few, preview(few))
    assert "1 of 2 concepts" in outlook(few, preview(few))
    assert outlook(few, preview(few)).endswith("--images 30")
    assert "2 of 2 concepts" in outlook(enough, preview(enough))
    assert "--images" not in outlook(enough, preview(enough))
