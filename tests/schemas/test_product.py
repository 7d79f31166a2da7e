"""Sequences over axes: the order is that of nested loops, whichever way an item is asked for."""

from itertools import product

import pytest

from schemas.product import Product


class Letters(Product[str]):
    """A letter of each of three words."""

    WORDS = ("ab", "xyz", "klmn")

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(len, self.WORDS))

    def at(self, *place: int) -> str:
        return "".join(word[index] for word, index in zip(self.WORDS, place, strict=True))


def test_items_come_as_in_nested_loops() -> None:
    letters = Letters()
    expected = ["".join(chosen) for chosen in product(*Letters.WORDS)]
    assert list(letters) == expected
    assert len(letters) == 24
    assert letters.places(range(24)) == [letters.place(n) for n in range(24)]
    assert [letters.at(*place) for place in letters.places([23, 0, 7])] == [
        expected[23], expected[0], expected[7]
    ]  # fmt: skip
    for outside in (-1, 24):
        with pytest.raises(IndexError):
            letters[outside]
