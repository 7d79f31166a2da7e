"""Texts of an evaluation or attack that the model or the scorer cuts are said."""

from jobs.evaluation.cut import warn_of_cut_choices, warn_of_cuts
from jobs.evaluation.evaluate import EvaluationSettings, make_plan
from schemas.attack import Attack, AttackPlan
from schemas.concept import Concept, ConceptKind
from schemas.numerics import Numerics


def warnings(*concepts: Concept) -> list[str]:
    plan = make_plan(
        concepts, model="emoji-sd", edits={"edit": "h"}, asked=EvaluationSettings(seeds=1)
    )
    noted: list[str] = []
    warn_of_cuts(plan, noted.append)
    return noted


def test_texts_that_fit_are_no_matter() -> None:
    assert warnings(Concept(concept="cat"), Concept(concept="red", kind=ConceptKind.COLOR)) == []


def test_a_reader_that_cuts_texts_is_named_with_one_of_them() -> None:
    (said,) = warnings(Concept(concept="Ada Lovelace", kind=ConceptKind.PERSON))
    assert said.startswith("warning: the scorer reads 24 tokens: of 2 of ")
    assert "Ada Lovelace" in said
    model, scorer = warnings(Concept(concept=" ".join(["owl"] * 30)))
    assert model.startswith("warning: the text_encoder's tokenizer reads 32 tokens")
    assert scorer.startswith("warning: the scorer reads 24 tokens")


def test_texts_that_judge_an_attack_are_checked_too() -> None:
    def said(*names: str) -> list[str]:
        plan = AttackPlan(
            edit="e",
            model="emoji-sd",
            scorer="builtin:emoji-sd",
            names={ConceptKind.OBJECT: ("cat", *names)},
            attacked=(Concept(concept="cat"),),
            attacks=(Attack.PROMPT,),
            seeds=1,
            numerics=Numerics(steps=2),
        )
        noted: list[str] = []
        warn_of_cut_choices(plan, noted.append)
        return noted

    assert said("dog") == []
    (line,) = said("dog", "owl " * 30 + "nest")
    assert line.startswith("warning: the scorer reads 24 tokens: of 1 of 3 texts")
