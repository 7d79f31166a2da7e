"""Batches that do not fit the memory are halved, and stay halved."""

import pytest
import torch

from engine.model.calibration import BatchRows


def test_rows_are_halved_until_they_fit_and_stay_so() -> None:
    tried: list[int] = []

    def work(rows: int) -> int:
        tried.append(rows)
        if rows > 5:
            raise torch.OutOfMemoryError
        return rows

    rows = BatchRows(20, least=2)
    assert rows.fit(work) == rows.fit(work) == 5
    assert tried == [20, 10, 5, 5]


@pytest.mark.parametrize(
    ("error", "tries"),
    [(torch.OutOfMemoryError("full"), [9, 4, 3]), (RuntimeError("shapes differ"), [9])],
)
def test_what_no_smaller_batch_helps_is_raised(error: RuntimeError, tries: list[int]) -> None:
    tried: list[int] = []

    def work(rows: int) -> None:
        tried.append(rows)
        raise error

    with pytest.raises(type(error)):
        BatchRows(9, least=3).fit(work)
    assert tried == tries
