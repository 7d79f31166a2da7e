"""Plurals of English nouns, as captions write them."""

import pytest

from engine.model.plurals import plural


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("cat", "cats"), ("fox", "foxes"), ("church", "churches"), ("cherry", "cherries"),
        ("monkey", "monkeys"), ("bus", "buses"), ("dress", "dresses"), ("snowman", "snowmen"),
        ("human", "humans"), ("Child", "Children"), ("wolf", "wolves"), ("sheep", "sheep"),
        ("french fries", "french fries"), ("cherries", "cherries"), ("oasis", "oases"),
        ("a poet", "poets"), ("bag of chips", "bags of chips"), ("octopus", "octopuses"),
        ("hot dog", "hot dogs"), ("mice", "mice"), ("R2-D2", "R2-D2"),
    ],
)  # fmt: skip
def test_plurals_follow_the_spelling_or_the_list(one: str, many: str) -> None:
    assert plural(one) == many


@pytest.mark.parametrize("noun", ["cat", "snowman", "woman", "hero", "butterfly"])
def test_a_plural_is_returned_unchanged(noun: str) -> None:
    assert plural(plural(noun)) == plural(noun)
