"""Batches are timed as a trace makes them; what does not fit the memory is halved, and stays so."""

from pathlib import Path

import pytest
import torch

from engine.model.calibration import BatchRows, calibrate
from engine.model.hooks import count_rows
from engine.model.opening import open_model
from schemas.numerics import Numerics


@pytest.mark.parametrize(("guidance", "halves"), [(1.0, 1), (3.0, 2)])
def test_a_timed_batch_has_the_clean_run_besides_its_rows(
    tiny_sd: Path, guidance: float, halves: int
) -> None:
    model, counted = open_model(str(tiny_sd)), list[int]()
    with count_rows(model.denoiser, counted.append):
        measured = calibrate(model, Numerics(steps=2, guidance=guidance))
    assert counted[:4] == [2 * halves + 1] * 2 + [4 * halves + 1] * 2
    assert measured.rows * halves + 1 in counted


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
