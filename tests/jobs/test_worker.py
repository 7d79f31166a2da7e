"""One worker, without Ray, on a tiny model: memory that runs out, and units that raise."""

from pathlib import Path

import pytest
import torch

from engine import tracing
from jobs.plans import check_plan, make_plan
from jobs.store import Run
from jobs.trace import prepare_run
from jobs.worker import TraceWorker

CAPTION = {"caption": "a red apple", "subject": "apple", "attribute": "object"}


@pytest.fixture
def run(tmp_path: Path, tiny_sd: Path, tiny_scorer: Path) -> Run:
    fields = {
        "model": str(tiny_sd),
        "scorer": str(tiny_scorer),
        "captions": [CAPTION],
        "parts": ["unet"],
        "numerics": {"steps": 2},
    }
    return prepare_run(tmp_path / "run", check_plan(make_plan(fields)))


def test_out_of_memory_halves_the_rows_and_changes_no_score(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_tried: list[int] = []
    decode = tracing.decode

    def tight_decode(model: object, latents_RCHW: torch.Tensor) -> torch.Tensor:
        rows_tried.append(len(latents_RCHW))
        if len(latents_RCHW) > 3:
            raise torch.OutOfMemoryError("no memory left")
        return decode(model, latents_RCHW)  # type: ignore[arg-type]

    unit_rows = run.unit_rows(0)
    plenty, _ = TraceWorker(str(run.path), rows=12, threads=1).trace(unit_rows)
    monkeypatch.setattr(tracing, "decode", tight_decode)
    worker = TraceWorker(str(run.path), rows=12, threads=1)
    tight, failures = worker.trace(unit_rows)
    assert not failures
    # The two reference runs fit; batches of changes halve until they do.
    assert rows_tried[0] == 2
    assert max(rows_tried[-4:]) <= 3 < max(rows_tried)
    for first, second in zip(plenty, tight, strict=True):
        assert first["component"] == second["component"]
        assert first["restored"] == pytest.approx(second["restored"], abs=1e-4)
    rows_tried.clear()
    worker.trace(unit_rows)
    assert max(rows_tried) <= 3, "a worker remembers what fitted"


def test_a_unit_that_raises_is_recorded_and_the_others_are_scored(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = run.unit_rows(0)[0], {**run.unit_rows(0)[0], "unit_id": "bad"}
    worker = TraceWorker(str(run.path), rows=12, threads=1)
    trace_unit, calls = tracing.trace_unit, iter((1, 2))

    def fails_first(*args: object, **named: object) -> object:
        if next(calls) == 1:
            raise ValueError("a broken unit")
        return trace_unit(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(tracing, "trace_unit", fails_first)
    rows, failures = worker.trace([bad, good])
    assert {row["unit_id"] for row in rows} == {good["unit_id"]}
    (failure,) = failures
    assert (failure.unit_id, failure.error) == ("bad", "ValueError")
    assert "a broken unit" in failure.traceback
